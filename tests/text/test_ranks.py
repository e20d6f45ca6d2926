"""Two ranks play text as one rank does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from shared import ranks

from litgan.losses import NonSaturating
from litgan.penalties import R1
from litgan.schedules import Linear
from litgan.text import CausalTextDiscriminator, Grammar, RecurrentTextGenerator, TextStatistics


def game() -> dict[str, Any]:
    """Sentences, with Gumbel noise at a temperature that follows the clock."""
    temperature = Linear(2.0, 0.5, 64)
    return ranks.play(
        Grammar(samples=640, batch_size=8), TextStatistics(),
        generator=partial(RecurrentTextGenerator, latent_dim=8, width=16, temperature=temperature),
        discriminator=partial(CausalTextDiscriminator, width=12, dilations=(1, 2)),
        loss=NonSaturating(), penalties=[R1(0.1, interval=3)],
    )  # fmt: skip


@pytest.mark.spawn
def test_two_ranks_play_as_one(tmp_path: Path) -> None:
    ranks.check(__file__, tmp_path)


if __name__ == "__main__":
    ranks.main(game)
