"""Two ranks play sound as one rank does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from shared import ranks

from litgan.losses import NonSaturating
from litgan.penalties import R1
from litgan.sound import SoundStatistics, Tones, WaveGANDiscriminator, WaveGANGenerator


def game() -> dict[str, Any]:
    """Tones, louder and softer, sooner and later."""
    return ranks.play(
        Tones(samples=640, length=256, batch_size=8, gain=(-6, 0), shift=9), SoundStatistics(),
        generator=partial(WaveGANGenerator, latent_dim=4, widths=(8, 4)),
        discriminator=partial(WaveGANDiscriminator, widths=(4, 8), phase_shuffle=0),  # each rank's own dice
        loss=NonSaturating(), penalties=[R1(0.5, interval=3)],
    )  # fmt: skip


@pytest.mark.spawn
def test_two_ranks_play_as_one(tmp_path: Path) -> None:
    ranks.check(__file__, tmp_path)


if __name__ == "__main__":
    ranks.main(game)
