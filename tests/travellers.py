"""Runs that are cut and go on, on as many ranks as there are now: `python travellers.py FOLDER`.

Two ranks train, then one, which takes over what they left, then two again. A rank saves what came of
each leg in `FOLDER/<turn>-<rank>.pt`; the first ones leave checkpoints for the next ones.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import workers
from workers import ITERATIONS, PICTURES, POINTS, Pictures, Witnessed, in_turn, train

from litgan.data import Ring
from litgan.losses import NonSaturating, Relativistic
from litgan.penalties import R1, R2
from litgan.strategy import register

FIRST, SECOND = 5, 13  # iterations after which runs are cut
LEGS: tuple[dict[str, tuple[str | None, int, str | None]], ...] = (  # from a checkpoint, until, to another
    {
        "uncut": (None, ITERATIONS, None),
        "cut": (None, FIRST, "of two"),
        "resumed": ("of two", ITERATIONS, None),
    },
    {
        "uncut": (None, ITERATIONS, None),
        "cut": (None, FIRST, "of one"),
        "resumed": ("of one", ITERATIONS, None),
        "2 to 1": ("of two", ITERATIONS, None),
        "2 to 1, cut": ("of two", SECOND, "of both"),
    },
    {
        "1 to 2": ("of one", ITERATIONS, None),
        "2 to 1 to 2": ("of both", ITERATIONS, None),
    },
)


def turns() -> tuple[Any, Any]:
    """Cut in the middle of an epoch of 7 batches, 2 turns an iteration, between lazy penalties, in parts."""
    gan = Witnessed(
        loss=Relativistic(), penalties=[R1(0.1, interval=3), R2(0.1, interval=4)], discriminator_steps=2,
        micro_batches=2, **POINTS,
    )  # fmt: skip
    return gan, Ring(batch_size=8, samples=60)


def images() -> tuple[Any, Any]:
    """Power iterations, labels, clipping: cut in the middle of an epoch of 9 batches."""
    gan = Witnessed(loss=NonSaturating(), penalties=[R1(0.5, interval=4)], gradient_clip_val=0.2, **PICTURES)
    return gan, Pictures(batch_size=8, num_classes=3)


def travel(turn: int, folder: Path) -> None:
    """The legs of turn 0 (two ranks), 1 (one rank) or 2 (two again)."""
    results: dict[str, Any] = {}
    for case in (turns, images):
        for leg, (start, iterations, end) in LEGS[turn].items():
            results[f"{case.__name__}, {leg}"] = train(
                *case(),
                iterations=iterations,
                start=start and folder / f"{case.__name__} {start}.ckpt",
                end=end and folder / f"{case.__name__} {end}.ckpt",
            )
    torch.save(results, folder / f"{turn}-{workers.RANK}.pt")


if __name__ == "__main__":
    register()
    for turn, world_size in enumerate((2, 1, 2)):
        in_turn(world_size, travel, turn, Path(sys.argv[1]))
