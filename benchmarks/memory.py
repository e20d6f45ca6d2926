"""Memory: what litgan's training holds, against the same game written by hand, and whether it grows.

    python benchmarks/memory.py [--iterations 2000]

Every line is a fresh process on the CPU that has built the recipe already; `training adds` is the most that
it held afterwards less what it held then. `growth` is what the process holds at the end less what it held
after a quarter of the iterations. The loop by hand is `loops.raw`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import loops
import measure
from lightning.pytorch import Callback, Trainer
from step import FASHION, PLAIN, REFERENCE, RING

from litgan.gan import GAN
from litgan.recipe import Recipe

CASES = {"dcgan-64": (FASHION, [*REFERENCE, *PLAIN], 0.03), "ring": (RING, [], 1.0)}
MIB = 2**20


def held() -> float:
    """MiB that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def peak() -> float:
    """The most that it ever held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


class Scale(Callback):
    """What the process holds after a quarter of the iterations."""

    def __init__(self, iterations: int) -> None:
        self.quarter, self.held = max(1, iterations // 4), 0.0

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if trainer.global_step == self.quarter:
            self.held = held()


def child(case: str, side: str, iterations: int) -> dict[str, float]:
    """Trains and weighs."""
    path, options, _ = CASES[case]
    off = [f"--{part}.every=0" for part in ("realism", "samples", "gradients")]
    with tempfile.TemporaryDirectory() as folder:
        place = ["--trainer.default_root_dir", folder, f"--trainer.max_steps={iterations}"]
        recipe = Recipe(["--config", path, *options, *off, *place])
        recipe.datamodule.load("train")
        before, scale = held(), Scale(iterations)
        if side == "litgan":
            recipe.trainer.callbacks.append(scale)
            with recipe.run_context():
                recipe.trainer.fit(recipe.model, recipe.datamodule)
        else:
            loop = loops.raw(recipe.model, recipe.datamodule, recipe.trainer.precision)
            for _ in islice(loop, scale.quarter):
                pass
            scale.held = held()
            for _ in islice(loop, iterations - scale.quarter):
                pass
        return {"at rest": before, "adds": peak() - before, "growth": held() - scale.held}


def main(arguments: list[str] | None = None) -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--child", nargs=3, help="CASE LOOP ITERATIONS: trains and weighs in this process")
    parsed = parser.parse_args(arguments)
    os.environ.setdefault("WANDB_MODE", "offline")
    if parsed.child:
        case, side, iterations = parsed.child
        print(json.dumps(child(case, side, int(iterations))))
        return
    parsed, rows = measure.setup(parsed), []
    for case in parsed.only:
        iterations = 8 if parsed.quick else max(8, int(CASES[case][2] * parsed.iterations))
        for side in ("raw", "litgan"):
            rows.append(weigh(case, side, iterations))
    print(measure.table(rows))
    measure.write(parsed, {"rows": rows})


def weigh(case: str, side: str, iterations: int) -> dict[str, Any]:
    """One line of the table, from a process of its own."""
    command = [sys.executable, __file__, "--child", case, side, str(iterations)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    weights = json.loads(said.strip().splitlines()[-1])
    return {
        "case": case, "loop": side, "iterations": iterations, "at rest, MiB": weights["at rest"],
        "training adds, MiB": weights["adds"], "growth, MiB": weights["growth"],
    }  # fmt: skip


if __name__ == "__main__":
    main()
