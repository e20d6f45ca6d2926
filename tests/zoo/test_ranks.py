"""Two ranks train in one stage as one rank does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import workers
from shared import ranks

from litgan.data import Ring
from litgan.losses import Relativistic
from litgan.penalties import R1, R2
from litgan.zoo import OneStageGAN


class Witnessed(workers.Witnessed, OneStageGAN):
    """Keeps the latents that it draws."""


def game() -> dict[str, Any]:
    penalties = [R1(0.1), R2(0.1, interval=2)]
    options = {"micro_batches": 2, "discriminator_steps": 2, **workers.POINTS}
    gan = Witnessed(loss=Relativistic(), penalties=penalties, **options)
    return workers.train(gan, Ring(batch_size=8, samples=40))


@pytest.mark.spawn
def test_two_ranks_play_as_one(tmp_path: Path) -> None:
    ranks.check(__file__, tmp_path, metrics=False)


if __name__ == "__main__":
    ranks.main(game)
