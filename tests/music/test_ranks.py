"""Two ranks play music as one rank does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from shared import ranks

from litgan.losses import Relativistic
from litgan.music import MusicStatistics, PianoRollDiscriminator, PianoRollGenerator, Scales
from litgan.penalties import R1, R2


def game() -> dict[str, Any]:
    """Scales in all keys that fit; binary neurons."""
    return ranks.play(
        Scales(samples=640, batch_size=8, transpose=4), MusicStatistics(),
        generator=partial(PianoRollGenerator, shared_dim=4, private_dim=2, widths=(8, 8)),
        discriminator=partial(PianoRollDiscriminator, private_width=8, widths=(8, 8)),
        loss=Relativistic(), penalties=[R1(0.1, interval=2), R2(0.1, interval=4)],
    )  # fmt: skip


@pytest.mark.spawn
def test_two_ranks_play_as_one(tmp_path: Path) -> None:
    ranks.check(__file__, tmp_path)


if __name__ == "__main__":
    ranks.main(game)
