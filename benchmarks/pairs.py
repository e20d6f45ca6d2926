"""What the adversary adds to recipes that make samples from an input, and what it costs in PSNR and L1.

    python benchmarks/pairs.py configs/fashion_edges.yaml configs/translation/fashion_*.yaml --threads 1
    python benchmarks/pairs.py configs/sound/drums_*.yaml --iterations 500 1500 --threads 1

Each recipe is trained as it is, and once more alone: the same generator, data and terms, but no adversarial
loss, no step of the discriminator, and no term that asks it. Both have equal iterations or equal minutes of
CPU time, which other work on the machine does not shorten; those of all threads count, measuring does not.
Beside them stands an opponent without training: the input itself, by bicubic interpolation where it is
smaller; for tokenizers a cosine transform with an ideal entropy code of as many bits (transform_coding.py);
for vocoders Griffin-Lim. All rows are of held-out pairs and averaged weights, judged by an extractor that no
term uses (judges.py). Of unpaired recipes the true pairs are known here. `nearest` is the share of fakes
whose nearest of the first 1,000 real samples, by mean square, is their own.
Other options go to the recipe.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import torch
import transform_coding
from lightning.pytorch import Callback, Trainer
from recipes import Protocol, Row
from torch import Tensor

from litgan.data import GANDataModule, Unpaired
from litgan.gan import GAN
from litgan.recipe import Recipe
from litgan.reconstruction import FeatureMatching
from litgan.render import save_png
from litgan.sampling import averaged_generator

NEIGHBORS, KNOWN, SHOWN = 1_000, 2_000, 16  # pairs in `nearest`, samples that codes are fitted to, pictures
BLOCKS = {4: 8, 3: 128}  # pixels a side, samples in time of a block that is coded; by dimensions of a batch
COLUMNS = (
    "when", "split", "count", "fd_judge", "precision", "recall", "psnr", "ssim", "l1", "stft", "mel_l1",
    "perplexity", "fd_music", "in_scale", "rule_breaks", "parallel_fifths", "parallel_octaves", "crossings",
    "leaps", "dissonances", "agreement",
)  # fmt: skip
OFF = [
    "realism",
    "samples",
    "gradients",
    "checkpoint",
    "health",  # wing: diagnosis
]
NEVER = ["--model.adversarial_weight=0", f"--model.discriminator_start={10**15}"]
Make = Callable[[Tensor], Tensor]  # conditions to fakes


class Pairs:
    """Held-out pairs of a data set, and what is measured of fakes for their conditions."""

    def __init__(self, data: GANDataModule, count: int) -> None:
        self.data: Any = data.conditions if isinstance(data, Unpaired) else data
        inner = self.data
        while hasattr(inner, "data"):
            inner = inner.data
        medium = ".".join(type(inner).__module__.split(".")[1:2])
        has_judge = (Path(__file__).parent / medium / "judges.py").exists()
        self.medium = importlib.import_module(f"{medium}.judges" if has_judge else "judges")
        self.protocol = Protocol(self.data, self.medium.judge(inner), count)

    def row(self, run: str, when: str, make: Make, generator: Any = None) -> Row:
        """One line of the table, of fakes made of conditions."""
        fakes: list[Tensor] = []

        def sample(first: int, count: int) -> Tensor:
            conditions = self.data.eval_conditions(count, self.protocol.split, first=first)
            fakes.append(make(conditions))
            return fakes[-1]

        neighbors = min(NEIGHBORS, self.protocol.count)
        options = {"pairs": True, "neighbours_count": neighbors, "generator": generator}
        values = self.protocol.row(when, sample, **options)
        values = {name: value for name, value in values.items() if name in COLUMNS}
        row = {"run": run, **values, "nearest": self.nearest(torch.cat(fakes)[:neighbors])}
        print(json.dumps(row), file=sys.stderr, flush=True)
        return row

    def nearest(self, fakes: Tensor) -> float:
        reals = torch.cat(
            [samples for samples, _ in self.data.real_batches(len(fakes), split=self.protocol.split)]
        )
        found = torch.cdist(fakes.flatten(1), reals.flatten(1)).argmin(1)
        return (found == torch.arange(len(fakes))).double().mean().item()

    def opponent(self, gan: GAN) -> Row:
        """What needs no training."""
        if not hasattr(gan.generator, "codes"):
            opponent = self.medium.OPPONENT
            name = f"opponent: {opponent.__name__}"
            return self.row(name, "", lambda condition: opponent(condition, self.data))
        known = torch.cat([samples for samples, _ in self.data.real_batches(min(KNOWN, self.data.size()))])
        with torch.no_grad():
            gan.generator(torch.empty(1, 0), known[:1])
        codes, network = gan.generator.codes, gan.generator.quantizer
        bits = codes.numel() * math.log2(network.num_codes) / known[0].numel()
        size = BLOCKS[known.ndim]
        name = f"opponent: DCT, {bits:.3g} bits a value"
        return self.row(name, "", lambda reals: transform_coding.code(reals, known, bits, size))


class Watch(Callback):
    """Measures the averaged generator at given points, in iterations or minutes of training, then stops."""

    def __init__(self, pairs: Pairs, run: str, points: list[float], unit: str) -> None:
        self.pairs, self.run, self.points, self.unit = pairs, run, list(points), unit
        self.rows: list[Row] = []

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.start = time.process_time()

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        minutes = (time.process_time() - self.start) / 60
        if not self.points or self.points[0] > {"it": trainer.global_step, "min": minutes}[self.unit]:
            return
        began = time.process_time()
        when = f"{self.points.pop(0):g} {self.unit}"
        make = lambda condition: gan.sample(len(condition), condition=condition)  # noqa: E731
        row = self.pairs.row(self.run, when, make, averaged_generator(gan))
        self.rows.append({**row, "images": gan.images_seen})
        trainer.should_stop = not self.points
        self.start += time.process_time() - began


def compare(path: Path, options: Any, extra: list[str]) -> list[Row]:
    """The rows of one recipe."""
    points, unit = (options.iterations, "it") if options.iterations else (options.minutes, "min")
    quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", f"--trainer.max_steps={10**8}"]
    quiet += [f"--{part}.every=0" for part in OFF if f"--{part}" not in "".join(extra)]
    rows: list[Row] = []
    for run, changes in {"recipe": [], "alone": NEVER}.items():
        if run not in options.runs:
            continue
        with tempfile.TemporaryDirectory() as folder:
            place = ["--trainer.default_root_dir", folder]
            recipe = Recipe(["--config", str(path), *quiet, *place, *extra, *changes])
            gan, data = recipe.model, recipe.datamodule
            if changes:
                terms = gan.reconstruction
                gan.reconstruction = tuple(term for term in terms if not isinstance(term, FeatureMatching))
            pairs = Pairs(data, options.count)
            rows += [] if rows else [pairs.opponent(gan)]
            watch = Watch(pairs, run, points, unit)
            recipe.trainer.callbacks.append(watch)
            recipe.trainer.fit(gan, datamodule=data)
        rows += watch.rows
        if options.pictures:
            draw(pairs, gan, options.pictures / f"{path.stem}_{run}.png")
    return [{"recipe": path.stem} | row for row in rows]


def draw(pairs: Pairs, gan: GAN, path: Path) -> None:
    """Fakes, and below them the real samples."""
    split = pairs.protocol.split
    reals = next(pairs.data.real_batches(SHOWN, split=split))[0]
    fakes = gan.sample(SHOWN, condition=pairs.data.eval_conditions(SHOWN, split))
    save_png(pairs.data.decode(torch.cat([fakes, reals])).render(SHOWN // 2), path)


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("recipes", nargs="+", type=Path)
    parser.add_argument("--minutes", nargs="+", type=float, default=[2, 5, 10])
    parser.add_argument("--iterations", nargs="+", type=int, default=[])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--runs", nargs="+", default=["recipe", "alone"], choices=["recipe", "alone"])
    parser.add_argument("--pictures", type=Path, help="folder for the last samples of each")
    options, extra = parser.parse_known_args()
    measure.setup(options)
    rows: list[Row] = []
    for path in options.recipes:
        rows += compare(path, options, extra)
    for recipe in dict.fromkeys(row["recipe"] for row in rows):  # media have metrics of their own
        print(measure.table([row for row in rows if row["recipe"] == recipe]) + "\n")
    measure.write(options, {"rows": rows})


if __name__ == "__main__":
    main()
