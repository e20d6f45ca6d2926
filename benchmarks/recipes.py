"""What recipes reach in so many minutes of training: distance, precision, recall, speed, memory, stability.

    python benchmarks/recipes.py configs/fashion_mnist*.yaml --minutes 2 5 10
    python benchmarks/recipes.py configs/fashion_mnist.yaml --images 100000 200000
    python benchmarks/recipes.py configs/digits.yaml                to the recipe's own end

Each recipe runs in a process of its own and is measured before its first step and after so many minutes of
training, or images seen; measurements do not count as training. All rows of a recipe share one protocol,
which stands beside the figures: the held-out split where the data have one, and equal counts on both sides.
"floor" is the training split measured as if it were generated, several times over where it is smaller;
"opponent" what people would pick instead, after as much training (benchmarks/<medium>/opponent.py). With
--judge a column holds the accuracy of a classifier of real against generated samples that was fitted on
half of them (0.5 is perfect; benchmarks/two_samples.py). last/best is the last distance over the best one.
Other options go to the recipe.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import torch
import two_samples
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from litgan.callbacks import Realism
from litgan.condition import choose_classes
from litgan.data import GANDataModule
from litgan.data.stock import eval_conditions
from litgan.gan import GAN
from litgan.metrics import evaluate, load_extractor
from litgan.recipe import Recipe
from litgan.render import save_png

Row = dict[str, Any]
JUDGED_AT_ONCE = 250  # samples


class Protocol:
    """What every row of a recipe is measured against: one extractor, split and count.

    Args:
        data: of the recipe.
        extractor: of the recipe.
        count: samples a side, at most; the split may hold fewer.
        judged: whether a classifier of real against fake is fitted, too.
    """

    def __init__(self, data: GANDataModule, extractor: Any, count: int, judged: bool = False) -> None:
        self.data, self.extractor, self.judged = data, extractor, judged
        self.split = "test" if "test" in data.splits else "train"
        self.count = min(count, data.size(self.split))

    def row(self, when: str, sample: Callable[[int, int], Tensor], **options: Any) -> Row:
        """One line of the table; `sample(first, size)` gives what is measured."""
        report = evaluate(sample, self.data, self.extractor, count=self.count, split=self.split, **options)
        found, sides = report.protocol, ("real_count", "fake_count")
        assert found["split"] == self.split and {found[side] for side in sides} == {self.count}
        values = {key.removeprefix("metric/"): value for key, value in report.values.items()}
        judge = {"judge": self.judge(sample)} if self.judged else {}
        return {"when": when, "split": self.split, "count": self.count, **values, **judge}

    def judge(self, sample: Callable[[int, int], Tensor]) -> float:
        """Accuracy of a classifier on half of both sides; of text in pieces it gets the letters."""
        shown = getattr(self.data, "spell", lambda samples: samples)
        starts = range(0, self.count, JUDGED_AT_ONCE)
        fake = [shown(sample(first, min(JUDGED_AT_ONCE, self.count - first)).cpu()) for first in starts]
        real = [shown(samples) for samples, _ in self.data.real_batches(self.count, split=self.split)]
        return two_samples.accuracy(real=torch.cat(real), fake=torch.cat(fake).float())


class Watch(Callback):
    """Measures the averaged generator before training and after given minutes of it, then stops.

    After infinite minutes: at the recipe's own end.

    Args:
        protocol: what it is measured against.
        due: minutes of training, or images seen if `by_images`, in rising order.
        picture: where the last samples go.
        by_images: see `due`.
    """

    def __init__(
        self, protocol: Protocol, due: list[float], picture: Path | None, by_images: bool = False
    ) -> None:
        self.protocol, self.picture, self.by_images = protocol, picture, by_images
        self.due, self.rows = list(due), []

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.measure(trainer, gan, "start")
        self.start, self.excluded, self.cpu = time.perf_counter(), gan.seconds_excluded, time.process_time()

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        trained = time.perf_counter() - self.start - (gan.seconds_excluded - self.excluded)
        done = gan.images_seen if self.by_images else trained / 60
        if not self.due or done < self.due[0] or not gan.iteration_is_complete:
            return
        due = self.due.pop(0)
        self.measure_trained(trainer, gan, f"{due:,.0f} images" if self.by_images else f"{due:g} min")
        self.rows[-1]["images/s"] = gan.images_seen / trained
        trainer.should_stop = not self.due

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        if self.due:
            self.measure_trained(trainer, gan, "end")
        if self.picture is not None:
            samples = gan.sample(64, condition=self.conditions(gan, 0, 64))
            save_png(trainer.datamodule.decode(samples).render(8), self.picture)

    def conditions(self, gan: GAN, first: int, count: int) -> Tensor | None:
        protocol = self.protocol
        return eval_conditions(gan, protocol.data, count, split=protocol.split, first=first)

    def measure_trained(self, trainer: Trainer, gan: GAN, when: str) -> None:
        """With the CPU seconds of training; measuring is excluded."""
        began, cpu = time.perf_counter(), time.process_time()
        self.measure(trainer, gan, when)
        self.rows[-1]["CPU s"] = cpu - self.cpu
        gan.seconds_excluded += time.perf_counter() - began
        self.cpu += time.process_time() - cpu

    def measure(self, trainer: Trainer, gan: GAN, when: str) -> None:
        row = self.protocol.row(
            when,
            lambda first, count: gan.sample(count, condition=self.conditions(gan, first, count), first=first),
            labels=lambda first, count: choose_classes(None, first, count, gan.num_classes),
        )  # fmt: skip
        self.rows.append({**row, "images": gan.images_seen})
        print(json.dumps(self.rows[-1]), file=sys.stderr, flush=True)


def bounds(protocol: Protocol, seconds: float) -> list[Row]:
    """The floor, and the opponents of this medium, whose networks learn for so many seconds."""
    data, count = protocol.data, protocol.count
    if protocol.split == "train":
        return []
    (reals,) = (part for part, _ in data.real_batches(min(count, data.size("train")), batch_size=count))
    rows = [protocol.row("floor", lambda first, size: reals[torch.arange(first, first + size) % len(reals)])]
    medium = ".".join(type(data).__module__.split(".")[1:2])
    if (Path(__file__).parent / medium / "opponent.py").exists():
        opponents = importlib.import_module(f"{medium}.opponent").opponents
        for name, made in opponents(data, count, seconds):
            rows.append(
                protocol.row(f"opponent: {name}", lambda first, size, made=made: made[first : first + size])
            )
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def one(
    path: Path,
    minutes: list[float],
    count: int,
    picture: Path | None,
    extra: list[str],
    *,
    images: list[int] | None = None,
    seconds: float | None = None,
    judged: bool = False,
) -> list[Row]:
    """The rows of one recipe, of this process, after so many minutes, or `images`.

    Opponents learn for `seconds`, by default for as many minutes, or until their own held-out loss rises.
    """
    quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    if images or minutes[-1] < math.inf:
        quiet.append("--trainer.max_steps=100000000")
    off = [f"--{part}.every=0" for part in ("realism", "samples", "gradients", "checkpoint")]
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(["--config", str(path), *quiet, *off, "--trainer.default_root_dir", folder, *extra])
        data, (realism,) = recipe.datamodule, (c for c in recipe.trainer.callbacks if isinstance(c, Realism))
        data.load("train")
        protocol = Protocol(data, load_extractor(realism.extractor), min(count, realism.count), judged)
        rows = bounds(protocol, 60 * minutes[-1] if seconds is None else seconds)
        watch = Watch(protocol, images or minutes, picture, by_images=bool(images))
        recipe.trainer.callbacks.append(watch)
        recipe.trainer.fit(recipe.model, datamodule=data)
    distances = [next(value for key, value in row.items() if key.startswith("fd_")) for row in watch.rows[1:]]
    watch.rows[-1]["last/best"] = distances[-1] / min(distances)
    watch.rows[-1]["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return [{"recipe": path.stem} | row for row in (*watch.rows, *rows)]


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("recipes", nargs="+", type=Path)
    due = parser.add_mutually_exclusive_group()
    due.add_argument("--minutes", nargs="+", type=float, default=[math.inf])
    due.add_argument("--images", nargs="+", type=int)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--pictures", type=Path, help="folder for the last samples of each")
    parser.add_argument("--judge", action="store_true", help="a column of a classifier's accuracy")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # one recipe, printed as JSON
    options, extra = parser.parse_known_args()
    if options.here:
        torch.set_num_threads(options.threads or torch.get_num_threads())
        (path,) = options.recipes
        picture = options.pictures / f"{path.stem}.png" if options.pictures else None
        run = options.minutes, options.count, picture, extra
        print(json.dumps(one(path, *run, images=options.images, judged=options.judge)))
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
