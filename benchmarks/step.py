"""The cost of one iteration: litgan against the same game written by hand, and against what people run.

    python benchmarks/step.py [--only dcgan-64 ring ...] [--rounds 15]

litgan here is a whole run: a recipe with its logger, progress bar, average of the weights and checkpoints,
trained by its own Trainer. After every block of its iterations the baselines run a block of the same length
in the same process, so that what disturbs the machine disturbs all: the limit (`loops.raw`: same networks,
flags and data on the device, by hand), PyTorch's DCGAN example (`loops.usual`) and Lightning's
(`loops.stock_block`). A ratio below 1 says that litgan takes less time; `overhead` is what it adds. A case
with `other` options is compared with litgan itself: whole runs with and without them alternate.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import loops
import measure
import torch
from lightning.pytorch import Callback, Trainer

from litgan.gan import GAN
from litgan.recipe import Recipe

FASHION, RING = "configs/fashion_mnist.yaml", "configs/ring.yaml"
REFERENCE = (  # 1.07 M + 0.66 M parameters
    "--model.generator.init_args.latent_dim=100", "--model.generator.init_args.widths=[256,128,64]",
    "--model.discriminator.init_args.widths=[64,128,256]",
)  # fmt: skip
PLAIN = ("--model.penalties=[]",)


@dataclass(frozen=True)
class Case:
    """A recipe with options, how many iterations make a block, and whom it is compared with."""

    recipe: str
    options: tuple[str, ...] = ()
    number: int = 10
    baselines: tuple[str, ...] = ("raw",)
    other: tuple[str, ...] = ()
    batch: int = 64


CASES = {
    "dcgan-64": Case(FASHION, (*REFERENCE, *PLAIN), baselines=("raw", "usual", "stock")),
    "dcgan-128": Case(FASHION, (*REFERENCE, *PLAIN), batch=128, number=5, baselines=("raw", "usual")),
    "dcgan-64 R1 every 16": Case(FASHION, (*REFERENCE, "--model.penalties.init_args.interval=16"), number=16),
    "dcgan-64 R1 every 1": Case(FASHION, (*REFERENCE, "--model.penalties.init_args.interval=1")),
    "dcgan-64 compiled": Case(FASHION, (*REFERENCE, *PLAIN, "--model.compile=true")),
    "recipe fashion_mnist": Case(FASHION, number=16, baselines=("raw", "usual")),
    "ring": Case(RING, number=200, batch=256),
}


class Interleaved(Callback):
    """Times blocks of the trainer's own iterations, and lets every baseline run a block after each."""

    def __init__(self, number: int, rounds: int, baselines: dict[str, Callable[[], float]]) -> None:
        self.number, self.rounds, self.baselines = number, rounds, baselines
        self.seconds: dict[str, list[float]] = {name: [] for name in ("litgan", *baselines)}
        self.began = 0.0

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if not gan.iteration_is_complete or trainer.global_step % self.number:
            return
        synchronise(gan.device)
        if self.began:  # the first block only warms up
            self.seconds["litgan"].append((time.perf_counter() - self.began) / self.number)
        for name, baseline in self.baselines.items():
            seconds = baseline()
            if self.began:
                self.seconds[name].append(seconds)
        trainer.should_stop = len(self.seconds["litgan"]) >= self.rounds
        self.began = time.perf_counter()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def block(loop: Iterator[None], number: int, device: torch.device) -> Callable[[], float]:
    """Seconds an iteration of the next `number` iterations of a loop."""

    def run() -> float:
        began = time.perf_counter()
        for _ in islice(loop, number):
            pass
        synchronise(device)
        return (time.perf_counter() - began) / number

    return run


def run(case: Case, rounds: int, extra: list[str]) -> dict[str, list[float]]:
    """Seconds an iteration of litgan and of each baseline, one figure a round."""
    off = [f"--{part}.every=0" for part in ("realism", "samples", "gradients")]
    with tempfile.TemporaryDirectory() as folder:
        options = [*case.options, *off, f"--data.batch_size={case.batch}", "--trainer.max_steps=1000000"]
        recipe = Recipe(["--config", case.recipe, *options, "--trainer.default_root_dir", folder, *extra])
        gan, data = recipe.model, recipe.datamodule
        precision = recipe.trainer.precision
        device = recipe.trainer.strategy.root_device
        twin = gan.to(device)
        makers = {
            "raw": lambda: block(loops.raw(twin, data, precision), case.number, device),
            "usual": lambda: block(loops.usual(twin, data), case.number, device),
            "stock": lambda: lambda: loops.stock_block(twin, data, case.number),
        }
        watch = Interleaved(case.number, rounds, {name: makers[name]() for name in case.baselines})
        recipe.trainer.callbacks.append(watch)  # after all others
        with recipe.run_context():
            recipe.trainer.fit(gan, recipe.datamodule)
    return watch.seconds


def run_both(case: Case, rounds: int, extra: list[str]) -> dict[str, list[float]]:
    """Seconds an iteration of litgan without and with the case's `other` options, one figure a round."""
    seconds: dict[str, list[float]] = {"litgan": [], "other": []}
    for _ in range(rounds):
        for side, options in (("litgan", ()), ("other", case.other)):
            played = replace(case, options=(*case.options, *options), other=())
            seconds[side] += run(played, 1, extra)["litgan"]
    return seconds


def main(cases: dict[str, Case], doc: str = __doc__, script: str = __file__) -> None:
    """Measures these cases; `doc` and `script` are those of the script."""
    parser = measure.options(doc, script)
    parser.add_argument("--only", nargs="+", choices=cases, default=list(cases), metavar="CASE")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--options", nargs="*", default=[], help="further options of every recipe")
    parsed = measure.parse(parser)
    os.environ.setdefault("WANDB_MODE", "offline")
    rows, blocks = [], {}
    for name in parsed.only:
        case = cases[name]
        play = run_both if case.other else run
        seconds = play(case, 2 if parsed.quick else parsed.rounds, parsed.options)
        blocks[name] = seconds
        rows.append(row(name, seconds))
        print(measure.table(rows[-1:]), flush=True)
    print(
        "\nMilliseconds an iteration and ratios: median (quartiles) of alternating blocks.\n"
        + measure.table(rows)
    )
    measure.write(parsed, {"rows": rows, "seconds": blocks})


def row(name: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """One line of the table."""
    line: dict[str, Any] = {"case": name}
    line |= {f"{side} ms": measure.show(values, 1e3) for side, values in seconds.items()}
    baselines = [side for side in seconds if side != "litgan"]
    line |= {
        f"litgan/{side}": measure.show(measure.ratios(seconds["litgan"], seconds[side])) for side in baselines
    }
    if "raw" not in seconds:
        return line
    added = [a - b for a, b in zip(seconds["litgan"], seconds["raw"], strict=True)]
    return line | {"overhead ms": measure.show(added, 1e3)}


if __name__ == "__main__":
    main(CASES)
