"""What measuring costs: iterations of a recipe with and without traces of the gradient flow.

    python benchmarks/gradient_flow.py [--only digits fashion_mnist] [--rounds 9]

One run of a recipe, with its loggers and average, in alternating blocks: plain ones, and ones with a single
measurement (`Feedback`, pictures and all). What a block takes longer than the plain one before it is the cost
of a measurement; `share` is that cost over the time of the iterations between two measurements at the default
cadence, in percent.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

import measure
from lightning.pytorch import Callback, Trainer
from step import synchronise

from litgan.callbacks import Feedback
from litgan.gan import GAN
from litgan.recipe import Recipe

BLOCKS = {"digits": 30, "fashion_mnist": 8}  # iterations of a block, by recipe
KINDS: dict[str, type[Callback]] = {"gradient_flow": Feedback}


class Blocks(Callback):
    """Times blocks of a trainer's iterations, in which one callback after the other measures."""

    def __init__(self, number: int, rounds: int, callbacks: dict[str, Any]) -> None:
        self.number, self.rounds, self.callbacks = number, rounds, callbacks
        self.sides = ["plain", *callbacks]
        self.seconds: dict[str, list[float]] = {side: [] for side in self.sides}
        self.block, self.began = -len(self.sides), 0.0  # the first of each only warms up

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if not gan.iteration_is_complete or trainer.global_step % self.number:
            return
        synchronise(gan.device)
        if self.began:
            if self.block >= 0:
                side = self.sides[self.block % len(self.sides)]
                self.seconds[side].append((time.perf_counter() - self.began) / self.number)
            self.block += 1
        trainer.should_stop = self.block == self.rounds * len(self.sides)
        for side, callback in self.callbacks.items():
            due = side == self.sides[self.block % len(self.sides)]
            callback.every = gan.images_per_iteration * self.number if due else 0
        self.began = time.perf_counter()


def run(
    kinds: dict[str, Any], name: str, number: int, rounds: int, options: list[str]
) -> tuple[dict[str, list[float]], int]:
    """Seconds an iteration of each side, one figure a round, and the images of an iteration."""
    off = [
        f"--{part}.every=0"
        for part in ("realism", "samples", *({"gradients"} | kinds.keys() - {"gradient_flow"}))
    ]
    with tempfile.TemporaryDirectory() as folder:
        fixed = ["--trainer.max_steps=1000000", "--trainer.default_root_dir", folder]
        recipe = Recipe(["--config", f"configs/{name}.yaml", *off, *fixed, *options])
        found = {
            side: next(one for one in recipe.trainer.callbacks if isinstance(one, kind))
            for side, kind in kinds.items()
        }
        blocks = Blocks(number, rounds, found)
        recipe.trainer.callbacks.append(blocks)  # after all others
        with recipe.run_context():
            recipe.trainer.fit(recipe.model, recipe.datamodule)
    return blocks.seconds, recipe.model.images_per_iteration


def row(
    name: str, seconds: dict[str, list[float]], cadences: dict[str, int], number: int, images: int
) -> dict[str, Any]:
    """One line of the table."""
    plain = seconds["plain"]
    line: dict[str, Any] = {"recipe": name, "iteration ms": measure.show(plain, 1e3)}
    for side, cadence in cadences.items():
        costs = [(a - b) * number for a, b in zip(seconds[side], plain, strict=True)]
        shares = [cost / (b * cadence / images) for cost, b in zip(costs, plain, strict=True)]
        line |= {f"{side} ms": measure.show(costs, 1e3), f"{side} share %": measure.show(shares, 100)}
    return line


def main(kinds: dict[str, Any], doc: str = __doc__, script: str = __file__) -> None:
    """Measures the callbacks of these kinds, which have an `every`.

    Args:
        kinds: name to class of a default callback.
        doc: of the script.
        script: its path.
    """
    parser = measure.options(doc, script)
    parser.add_argument("--only", nargs="+", choices=BLOCKS, default=list(BLOCKS), metavar="RECIPE")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--options", nargs="*", default=[], help="further options of every recipe")
    parsed = measure.parse(parser)
    cadences = {side: kind().every for side, kind in kinds.items()}  # images between two measurements
    os.environ.setdefault("WANDB_MODE", "offline")
    rows, blocks = [], {}
    for name in parsed.only:
        rounds = 2 if parsed.quick else parsed.rounds
        blocks[name], images = run(kinds, name, BLOCKS[name], rounds, parsed.options)
        rows.append(row(name, blocks[name], cadences, BLOCKS[name], images))
    print("\nMedian (quartiles) of blocks in turns.\n" + measure.table(rows))
    measure.write(parsed, {"rows": rows, "seconds": blocks, "cadences": cadences})


if __name__ == "__main__":
    main(KINDS)
