"""How the cost of a training step grows with the batch, the resolution, the width and the data set.

    python benchmarks/scaling.py [--iterations 16] [--accelerator cpu]

Each case is a fresh process: the real GAN under the real Trainer, in the machine's best precision, with gray
synthetic images that lie in memory as uint8. Networks, loss, penalty and optimizers are those of
configs/fashion_mnist.yaml; at other resolutions the networks keep their widths and start from a larger base.
A time is the mean of four iterations, so that each holds one lazy penalty. Memory is on CUDA that of the
tensors, on CPU the most that the process ever held: `at rest` before the first iteration, `training adds`
what came on top. An exponent is the slope of least squares through the logarithms, cost ~ size ** exponent;
the second one is taken from the two largest sizes alone, where constant costs weigh least.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from functools import partial
from typing import Any

import measure
import torch
from lightning.pytorch import Callback, Trainer
from synthetic import Synthetic

from litgan import GAN
from litgan.callbacks.throughput import peak_memory_gib
from litgan.cli import silence_warnings
from litgan.losses import NonSaturating
from litgan.networks import DCGANDiscriminator, DCGANGenerator
from litgan.penalties import R1
from litgan.precision import best_precision

BASE = {"batch": 64, "resolution": 32, "width": 1.0, "images": 10_000}
CASES: dict[str, list[Any]] = {
    "batch": [16, 32, 64, 128, 256, 512],
    "resolution": [32, 64, 128],
    "width": [0.5, 1.0, 2.0, 4.0],
    "images": [1_000, 10_000, 100_000, 1_000_000],
}
QUICK: dict[str, list[Any]] = {"images": [1_000, 200_000]}
MS, ADDS = "milliseconds an iteration", "training adds, MiB"
BLOCK = 4  # iterations between two lazy penalties


class Watch(Callback):
    """Seconds an iteration, of blocks of so many, and the GiB held before the first."""

    def __init__(self, block: int) -> None:
        self.block, self.seconds = block, list[float]()

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.at_rest = peak_memory_gib(gan.device)
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: Any) -> None:
        if gan.iteration_is_complete and trainer.global_step % self.block == 0:
            if gan.device.type == "cuda":
                torch.cuda.synchronize()
            self.seconds.append((time.perf_counter() - self.began) / self.block)
            self.began = time.perf_counter()


def train(case: dict[str, Any], accelerator: str, iterations: int) -> measure.Row:
    """Step times and memory of one case, in this process."""
    silence_warnings()
    watch, adam = Watch(BLOCK), partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99), fused=True)
    shape = (1, case["resolution"], case["resolution"])
    widths = [int(case["width"] * width) for width in (128, 64, 32)]
    gan = GAN(
        partial(DCGANGenerator, widths=widths, norm="none", initialization="he"),
        partial(DCGANDiscriminator, widths=widths[::-1], initialization="he"),
        NonSaturating(), adam, adam, penalties=[R1(0.5, interval=BLOCK)], sample_shape=shape,
    )  # fmt: skip
    trainer = Trainer(
        max_steps=iterations + BLOCK, max_epochs=-1, accelerator=accelerator, devices=1,
        precision=best_precision(), callbacks=[watch], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    data = Synthetic(case["resolution"], 1, samples=case["images"], batch_size=case["batch"], memory="device")
    trainer.fit(gan, datamodule=data)
    return {"seconds": watch.seconds[1:], "at_rest": watch.at_rest, "peak": peak_memory_gib(gan.device)}


def afresh(case: dict[str, Any], options: Any) -> measure.Row:
    """`train` in a process of its own."""
    command = [sys.executable, __file__, f"--case={json.dumps(case)}", f"--iterations={options.iterations}"]
    command += [f"--accelerator={options.accelerator}"]
    command += [f"--threads={options.threads}"] if options.threads else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: list[float], costs: list[float]) -> float:
    """Slope of the least-squares line through the logarithms; NaN where a cost is nothing."""
    if min(costs) <= 0:
        return math.nan
    x, y = ([math.log(value) for value in values] for values in (sizes, costs))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return slope / sum((a - mean_x) ** 2 for a in x)


def grow(axis: str, sizes: list[Any], options: Any, known: dict[str, measure.Row]) -> list[measure.Row]:
    """A row for each size; `known` keeps the case that the axes have in common."""
    rows: list[measure.Row] = []
    for size in sizes:
        case = BASE | {axis: size}
        key = json.dumps(case)
        found = known[key] = known.get(key) or afresh(case, options)
        median, lower, upper = measure.spread(found["seconds"])
        rows.append({
            axis: size, MS: 1e3 * median, "from": 1e3 * lower, "to": 1e3 * upper,
            "images/s": case["batch"] / median, "at rest, MiB": 1024 * found["at_rest"],
            ADDS: 1024 * (found["peak"] - found["at_rest"]),
        })  # fmt: skip
    return rows


def exponents(axis: str, rows: list[measure.Row]) -> dict[str, list[float]]:
    """Of time and of memory: over all sizes, and over the two largest."""
    return {
        key: [exponent([row[axis] for row in part], [row[key] for row in part]) for part in (rows, rows[-2:])]
        for key in (MS, ADDS)
    }


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--iterations", type=int, default=16, help=f"of each case, a multiple of {BLOCK}")
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--case", type=json.loads, help="one case alone, as JSON, in this process")
    options = measure.parse(parser)
    if options.case:
        print(json.dumps(train(BASE | options.case, options.accelerator, options.iterations)))
        return
    known: dict[str, measure.Row] = {}
    result: dict[str, Any] = {}
    for axis, sizes in (QUICK if options.quick else CASES).items():
        rows = grow(axis, sizes, options, known)
        print("\n" + measure.table(rows), flush=True)
        found = exponents(axis, rows)
        for key, (whole, end) in found.items():
            print(f"{key} ~ {axis} ** {whole:.2f}; {end:.2f} between the two largest", flush=True)
        result[axis] = {"rows": rows, "exponents": found}
    measure.write(options, result)


if __name__ == "__main__":
    main()
