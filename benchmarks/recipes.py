"""What recipes reach in so many minutes of training: distance, precision, recall, speed, memory, stability.

    python benchmarks/recipes.py configs/fashion_mnist*.yaml --minutes 2 5 10

Each recipe runs in a process of its own and is measured as it measures itself, before its first step and
after so many minutes; only training counts as time. Where the data have a held-out split, "floor" is the
training split measured against it as if it were generated, and "opponent" a model without a network
(benchmarks/<medium>/opponent.py). last/best is the last distance over the best one. Other options go to the
recipe.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measure
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from litgan.data import GANDataModule
from litgan.gan import GAN
from litgan.metrics import evaluate, load_extractor
from litgan.recipe import Recipe
from litgan.render import save_png
from litgan.sampling import choose_classes

Row = dict[str, Any]


class Watch(Callback):
    """Measures the averaged generator before training and after given minutes of it, then stops."""

    def __init__(self, extractor: Any, count: int, minutes: list[float], picture: Path | None) -> None:
        self.extractor, self.count, self.picture = extractor, count, picture
        self.minutes, self.rows = list(minutes), []

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.measure(trainer, gan, 0.0)
        self.start, self.aside = time.perf_counter(), gan.seconds_excluded

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        trained = time.perf_counter() - self.start - (gan.seconds_excluded - self.aside)
        if not self.minutes or trained < 60 * self.minutes[0]:
            return
        began = time.perf_counter()
        self.measure(trainer, gan, self.minutes.pop(0))
        self.rows[-1]["images/s"] = gan.images_seen / trained
        if not self.minutes:
            if self.picture is not None:
                save_png(trainer.datamodule.decode(gan.sample(64)).render(8), self.picture)
            trainer.should_stop = True
        gan.seconds_excluded += time.perf_counter() - began

    def measure(self, trainer: Trainer, gan: GAN, minutes: float) -> None:
        report = evaluate(
            lambda first, count: gan.sample(count, first=first), trainer.datamodule, self.extractor,
            count=self.count, labels=lambda first, count: choose_classes(None, first, count, gan.num_classes),
        )  # fmt: skip
        row = {"when": f"{minutes:g} min" if minutes else "start", "images": gan.images_seen}
        self.rows.append(row | short(report.values))
        print(json.dumps(self.rows[-1]), file=sys.stderr, flush=True)


def short(values: dict[str, float]) -> dict[str, float]:
    return {key.removeprefix("metric/"): value for key, value in values.items()}


def bounds(data: GANDataModule, extractor: Any, count: int) -> list[Row]:
    """The floor, and the opponent if this medium has one."""
    if "test" not in data.splits:
        return []
    count = min(count, data.size("test"))
    reals = [samples for samples, _ in data.real_batches(count, batch_size=count)]

    def floor(first: int, size: int) -> Tensor:
        return reals[0][first : first + size]

    rows = [{"when": "floor"} | short(evaluate(floor, data, extractor, count=count, split="test").values)]
    medium = type(data).__module__.split(".")[1]
    if (Path(__file__).parent / medium / "opponent.py").exists():
        opponent = importlib.import_module(f"{medium}.opponent").OPPONENT
        made = opponent(data, count, 0)
        values = evaluate(lambda first, size: made[first : first + size], data, extractor, count=count).values
        rows.append({"when": f"opponent: {opponent.__name__}"} | short(values))
    return rows


def one(path: Path, minutes: list[float], count: int, picture: Path | None, extra: list[str]) -> list[Row]:
    """The rows of one recipe, of this process."""
    quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.max_steps=100000000"]
    off = [f"--{part}.every=0" for part in ("realism", "samples", "gradients", "checkpoint")]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(["--config", str(path), *quiet, *off, "--trainer.default_root_dir", folder, *extra])
        extractor = load_extractor(recipe.config.realism.extractor)
        data = recipe.datamodule
        data.load("train")
        rows = bounds(data, extractor, count)
        watch = Watch(extractor, min(count, recipe.config.realism.count), minutes, picture)
        recipe.trainer.callbacks.append(watch)
        recipe.trainer.fit(recipe.model, datamodule=data)
    distances = [next(value for key, value in row.items() if key.startswith("fd_")) for row in watch.rows[1:]]
    watch.rows[-1]["last/best"] = distances[-1] / min(distances)
    watch.rows[-1]["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return [{"recipe": path.stem} | row for row in (*watch.rows, *rows)]


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--minutes", nargs="+", type=float, default=[2, 5, 10])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--pictures", type=Path, help="folder for the last samples of each")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # one recipe, printed as JSON
    options, extra = parser.parse_known_args()
    if options.here:
        torch.set_num_threads(options.threads or torch.get_num_threads())
        (path,) = options.recipes
        picture = options.pictures / f"{path.stem}.png" if options.pictures else None
        print(json.dumps(one(path, options.minutes, options.count, picture, extra)))
        return
    measure.setup(options)
    rows: list[Row] = []
    for path in options.recipes:
        command = [sys.executable, __file__, *sys.argv[1:], "--here"]
        command = [part for part in command if Path(part) not in options.recipes or Path(part) == path]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        rows += json.loads(said.splitlines()[-1])
    for recipe in dict.fromkeys(row["recipe"] for row in rows):  # media have metrics of their own
        print(measure.table([row for row in rows if row["recipe"] == recipe]) + "\n")
    measure.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
