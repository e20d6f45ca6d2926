"""How fast real samples come: litgan's loaders against a torchvision data set behind a DataLoader.

    python benchmarks/data.py [--rounds 3] [--batches 64 128] [--files 4000] [--iterations 300]
    python benchmarks/data.py --only stored [--count 20000]
    python benchmarks/data.py --only index [--names 100000]

One call is one epoch of Fashion-MNIST at 32 x 32, shuffled, as float32 in [-1, 1], workers already started.
From memory, `whole batches` indexes one uint8 tensor and `by sample` reads sample after sample through
torch's DataLoader; `torchvision` is the usual way: its FashionMNIST class, which makes a PIL image of every
sample, with ToTensor and Normalize. From PNG files (the first so many), `by sample` is litgan's ImageFolder,
`torchvision` its own. Then a real run of configs/fashion_mnist.yaml measures the share of its time that it
waits for data. --quick takes the digits.

`stored` reads synthetic JPEG files of 64 x 64 as they lie in a folder, in a .zip, in shards of WebDataset, in
a table of `datasets`, and as `litgan pack` maps them, against the same images in memory; it also weighs four
workers of some. Each is read in the same random order, from the system's page cache. `index` lists and checks
a large folder, then finds it in litgan's index.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import measure
import stored
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from litgan.cli import silence_warnings
from litgan.data import Digits, FashionMNIST, ImageFolder
from litgan.data.images import ImageData
from litgan.data.loader import Loader, ResumableBatchSampler
from litgan.loggers import read_metrics
from litgan.recipe import Recipe

CONFIGS = Path(__file__).parents[1] / "configs"


PREPARE = [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
Epoch: TypeAlias = Callable[[], int]  # reads it and returns the number of its samples


class Torchvision(datasets.FashionMNIST):
    """torchvision's class, given the tensors instead of the files."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.data, self.targets, self.target_transform = images[:, 0], labels, None
        self.transform = transforms.Compose(PREPARE)


def from_memory(data: ImageData, batch: int, workers: Sequence[int]) -> dict[str, Epoch]:
    """Epochs of a data set that is one tensor."""
    images, labels = cast("tuple[Tensor, Tensor]", data.load())
    sampler = ResumableBatchSampler(len(images), batch)
    whole = {"whole batches": epoch(Loader(images, None, sampler, memory="device"))}
    return whole | both(list(images), Torchvision(images, labels), batch, workers)


def from_files(folder: Path, batch: int, workers: Sequence[int]) -> dict[str, Epoch]:
    """Epochs of a folder of PNG files."""
    pictures, _ = ImageFolder(str(folder), channels=1, memory="disk").load()
    theirs = datasets.ImageFolder(str(folder), transforms.Compose([transforms.Grayscale(), *PREPARE]))
    return both(pictures, theirs, batch, workers)


def both(ours: Any, theirs: Any, batch: int, workers: Sequence[int]) -> dict[str, Epoch]:
    """Sample after sample of either data set, by so many workers."""
    sampler, found = ResumableBatchSampler(len(ours), batch), {}
    for number in workers:
        found[f"by sample, {number} workers"] = epoch(Loader(ours, None, sampler, num_workers=number))
    for number in workers:
        options: dict[str, Any] = {"shuffle": True, "drop_last": True, "num_workers": number}
        usual = DataLoader(theirs, batch, persistent_workers=number > 0, **options)
        found[f"torchvision, {number} workers"] = epoch(usual)
    return found


def epoch(loader: Iterable[tuple[Tensor, Any]]) -> Epoch:
    return lambda: sum(len(real) for real, _ in loader)


def compare(source: str, sides: dict[str, Epoch], batch: int, rounds: int) -> list[measure.Row]:
    """A row for each loader: images a second, and the ratio to torchvision without workers."""
    images = next(iter(sides.values()))()
    seconds = measure.in_turns(sides, rounds)
    reference = seconds["torchvision, 0 workers"]
    return [
        {
            "source": source, "batch": batch, "loader": name, "images/s": images / statistics.median(times),
            "milliseconds a batch": measure.show(times, 1e3 * batch / images),
            "times torchvision, 0": measure.show(measure.ratios(reference, times)),
        }
        for name, times in seconds.items()
    ]  # fmt: skip


def write_files(data: ImageData, count: int, folder: Path) -> None:
    """The first samples as PNG files, in one class."""
    (folder / "all").mkdir()
    images = cast("Tensor", data.load()[0])
    for index, image in enumerate(images[:count, 0].numpy()):
        Image.fromarray(image).save(folder / "all" / f"{index:05}.png")


def waiting(recipe: str, iterations: int) -> list[float]:
    """The share of training time spent waiting for data, in every logging interval of a run but the first."""
    every = max(1, iterations // 10)
    own = {
        "trainer.max_steps": iterations, "trainer.log_every_n_steps": every, "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false", "checkpoint.every": 0, "realism.every": 0,
        "samples.every": 0, "gradients.every": 0,
    }  # fmt: skip
    os.environ["WANDB_MODE"] = "disabled"
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--{key}={value}" for key, value in own.items()]
        made = Recipe(["--config", str(CONFIGS / recipe), *options, f"--trainer.default_root_dir={folder}"])
        with made.run_context():
            made.trainer.fit(made.model, datamodule=made.datamodule)
        rows = read_metrics(made.folder.path / "metrics.csv")
    return [row["speed/data_wait"] for row in rows if "speed/data_wait" in row][1:]


def from_storage(options: argparse.Namespace) -> dict[str, list[measure.Row]]:
    """Rows of what packing takes, of images a second, and of the memory of workers."""
    workers = [0, 2]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["LITGAN_CACHE"] = str(root / "cache")  # packing lists and checks all files
        files = stored.write_folder(options.count, root / "folder")
        packing = [stored.pack(root)]
        print(measure.table(packing), flush=True)
        stored.write_others(files, root)
        limit = min(options.count, options.files)
        sides = stored.readers(root, options.batches[0], limit, workers)
        seconds = measure.in_turns(sides, options.rounds)
        read = limit // options.batches[0] * options.batches[0]
        rows = [
            {
                "images": options.count, "stored": name,
                "images/s": measure.show([read / each for each in times]),
                "times folder, 0": measure.show(measure.ratios(seconds["folder, 0 workers"], times)),
            }
            for name, times in seconds.items()
        ]  # fmt: skip
        print(measure.table(rows), flush=True)
        memory = [stored.weigh_afresh(kind, root, 4) for kind in ("packed", "folder", "zip")]
        print(measure.table(memory), flush=True)
    return {"packing": packing, "stored": rows, "memory": memory}


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--files", type=int, default=4_000, help="PNG files that are read")
    parser.add_argument("--iterations", type=int, default=300, help="of the training run")
    parser.add_argument("--count", type=int, default=20_000, help="images that are stored")
    parser.add_argument("--names", type=int, default=100_000, help="of images that are listed")
    parser.add_argument("--only", choices=["loaders", "stored", "index"], help="by default all")
    options = measure.parse(parser)
    silence_warnings()
    if options.quick:
        options.batches, options.files, options.count, options.names = [64], 200, 1200, 2000
        options.rounds, options.iterations = 1, 20
    found: dict[str, Any] = {}
    for part, measured in (("loaders", from_loaders), ("stored", from_storage), ("index", from_index)):
        found |= measured(options) if options.only in (None, part) else {}
    measure.write(options, found)


def from_index(options: argparse.Namespace) -> dict[str, Any]:
    """A row of what a list of many images takes."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LITGAN_CACHE"] = folder
        rows = [stored.index(options.names, Path(folder))]
    print(measure.table(rows), flush=True)
    return {"index": rows}


def from_loaders(options: argparse.Namespace) -> dict[str, Any]:
    """Rows of loaders beside torchvision's, and the share of a run that waits for data."""
    data: ImageData = Digits(32) if options.quick else FashionMNIST()
    recipe, workers = ("digits.yaml", [0, 1]) if options.quick else ("fashion_mnist.yaml", [0, 1, 2])
    rows: list[measure.Row] = []
    with tempfile.TemporaryDirectory() as folder:
        write_files(data, options.files, Path(folder))
        for batch in options.batches:
            rows += compare("memory", from_memory(data, batch, workers), batch, options.rounds)
            rows += compare("files", from_files(Path(folder), batch, workers), batch, options.rounds)
    print(measure.table(rows))
    shares = waiting(recipe, options.iterations)
    print(f"Training configs/{recipe} waits for data {measure.show(shares, 100)} % of its time.", flush=True)
    return {"rows": rows, "data_wait": {"recipe": recipe, "shares": shares}}


if __name__ == "__main__":
    main()
