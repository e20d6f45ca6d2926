"""Time to quality on Fashion-MNIST, as a ratio that travels between machines.

    python benchmarks/speedrun.py --recipe configs/fashion_mnist.yaml --seeds 0 1 2

How long does a recipe train from scratch, without pre-trained features, until `fd_fashion` of 10,000 samples
against 10,000 reals of the training split is at most 2.0, and at the next measurement too? The unit is the
time of 1,000 iterations of the plain DCGAN loop (`quality.plain_loop`) on the same machine: a few of them
run after every few iterations of the recipe, in the same process and with as many threads. Measuring and the
plain loop are not training time. `judge` is a distance that no recipe was tuned on: features of a classifier
of another architecture (judges.py), against the 10,000 reals of the held-out split. Further options go to the
recipe. Records: RECORDS.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import judges
import measure
from lightning.pytorch import Callback, Trainer
from quality import plain_loop
from torch import Tensor, nn

from litgan.gan import GAN
from litgan.metrics import FeatureExtractor, evaluate
from litgan.recipe import Recipe

COUNT = 10_000  # samples a side
TOGETHER = 5  # iterations of the plain loop in a block


class Clock:
    """Seconds and CPU seconds of this process, summed over what runs inside."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self.began[0]
        self.cpu += time.process_time() - self.began[1]


class Race(Callback):
    """Measures every `every` images from `first` on, and stops at the second measurement in a row in reach.

    Args:
        target: the distance to reach.
        every: images between measurements.
        first: images before the first one.
        last: images after which it gives up; the recipe's own end does not count.
        block: iterations of the recipe between blocks of the plain loop.
        judge: an extractor that no recipe was tuned on.
        count: samples a side.
    """

    def __init__(
        self,
        target: float,
        every: int,
        first: int,
        last: int,
        block: int,
        judge: FeatureExtractor,
        count: int = COUNT,
    ) -> None:
        self.target, self.every, self.first, self.last, self.block = target, every, first, last, block
        self.extractor, self.count = judge, count
        self.training, self.plain, self.iterations = Clock(), Clock(), 0
        self.rows: list[measure.Row] = []
        self.loop: Iterator[nn.Module]

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.loop = plain_loop(trainer.datamodule)
        next(self.loop)
        self.training.__enter__()

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if not gan.iteration_is_complete:
            return
        self.training.__exit__()
        if trainer.global_step % self.block == 0:
            with self.plain:
                for _ in range(TOGETHER):
                    next(self.loop)
            self.iterations += TOGETHER
        if gan.is_due(self.every) and gan.images_seen >= self.first:
            self.measure(trainer, gan)
            trainer.should_stop = self.ended or gan.images_seen >= self.last
        self.training.__enter__()

    def reached(self, row: measure.Row) -> bool:
        return row["fd_fashion"] <= self.target

    @property
    def ended(self) -> bool:
        """Whether the last two measurements are in reach."""
        return len(self.rows) > 1 and all(self.reached(row) for row in self.rows[-2:])

    def line(self) -> measure.Row:
        """The measurement that counts, and the distance at the next one; the last one if none does."""
        if not self.ended:
            return {"reached": "no", **self.rows[-1]}
        return {"reached": "yes", **self.rows[-2], "next": self.rows[-1]["fd_fashion"]}

    def measure(self, trainer: Trainer, gan: GAN) -> None:
        data = trainer.datamodule

        def distance(extractor: str | FeatureExtractor, split: str) -> float:
            sample: Callable[[int, int], Tensor] = lambda first, count: gan.sample(count, first=first)  # noqa: E731
            options: dict[str, Any] = {"count": self.count, "split": split, "neighbours_count": 100}
            return next(iter(evaluate(sample, data, extractor, **options).values.values()))

        row: measure.Row = {"images": gan.images_seen, "fd_fashion": distance("fashion", "train")}
        row["judge"] = distance(self.extractor, "test")
        row |= {"seconds": self.training.seconds, "CPU s": self.training.cpu}
        thousands = self.iterations / 1000
        row["ratio"] = self.training.seconds / (self.plain.seconds / thousands)
        row["ratio of CPU s"] = self.training.cpu / (self.plain.cpu / thousands)
        row |= {"unit s": self.plain.seconds / thousands, "unit CPU s": self.plain.cpu / thousands}
        self.rows.append(row)
        print(measure.table([row]), flush=True)


def play(parsed: Any, seed: int, extra: list[str]) -> measure.Row:
    """The line of one seed: its first measurement in reach whose next one is in reach too."""
    quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", f"--trainer.max_steps={10**8}"]
    off = [f"--{part}.every=0" for part in ("realism", "samples", "gradients", "checkpoint")]
    judge, count = judges.judge(None), 200 if parsed.quick else COUNT
    race = Race(parsed.target, parsed.every, parsed.first, parsed.last, parsed.block, judge, count)
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--seed_everything={seed}", "--trainer.default_root_dir", folder, *quiet, *off]
        recipe = Recipe(["--config", parsed.recipe, *options, *extra])
        recipe.trainer.callbacks.append(race)
        recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule)
    labels = "yes" if recipe.model.num_classes else "no"
    return {"seed": seed, **race.line(), "labels": labels, "precision": recipe.trainer.precision}


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--recipe", default="configs/fashion_mnist.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--target", type=float, default=2.0)
    parser.add_argument("--every", type=int, default=20_000, help="images between measurements")
    parser.add_argument("--first", type=int, default=0, help="images before the first measurement")
    parser.add_argument("--last", type=int, default=1_000_000, help="images after which it gives up")
    parser.add_argument("--block", type=int, default=100, help="iterations between blocks of the plain loop")
    parsed, extra = parser.parse_known_args()
    parsed = measure.setup(parsed)
    rows = [play(parsed, seed, extra) for seed in parsed.seeds]
    print(measure.table(rows))
    measure.write(parsed, {"rows": rows})


if __name__ == "__main__":
    main()
