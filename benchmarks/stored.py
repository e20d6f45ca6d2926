"""The same images as a folder, a .zip, shards, a table, packed and in memory: for data.py, which reads them.

python benchmarks/stored.py KIND FOLDER WORKERS        prints the memory that the workers take, as JSON
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from litgan.data import ArrowImages, ImageFolder, ShardImages
from litgan.data.base import GANDataModule
from litgan.data.index import TICK
from litgan.data.loader import Loader, ResumableBatchSampler
from litgan.data.pack import write_pack

SIDE, SHARD = 64, 1000  # pixels; images
KINDS: dict[str, tuple[type[GANDataModule], str]] = {  # class and place of each
    "packed": (ImageFolder, "packed"), "table": (ArrowImages, "table"), "shards": (ShardImages, "shards"),
    "folder": (ImageFolder, "folder"), "zip": (ImageFolder, "folder.zip"),
}  # fmt: skip


def write_folder(count: int, out: Path) -> list[Path]:
    """So many smooth random pictures as JPEG files, a thousand in each subfolder."""
    files = []
    noise = np.random.default_rng(0)
    for index in range(count):
        file = out / f"{index // SHARD:04}" / f"{index:07}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, quality=90)
        files.append(file)
    return files


def write_others(files: list[Path], root: Path) -> None:
    """Beside the folder a .zip, shards as WebDataset's and, if it is installed, a table of `datasets`."""
    with zipfile.ZipFile(root / "folder.zip", "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.write(file, file.relative_to(root / "folder"))
    (root / "shards").mkdir()
    for start in range(0, len(files), SHARD):
        with tarfile.open(root / "shards" / f"{start // SHARD:06}.tar", "w") as shard:
            for file in files[start : start + SHARD]:
                shard.add(file, file.name)
    if importlib.util.find_spec("datasets") is None:
        return
    import datasets

    datasets.disable_progress_bars()
    table = datasets.Dataset.from_dict({"image": list(map(str, files))})
    table.cast_column("image", datasets.Image()).save_to_disk(root / "table")


def pack(root: Path) -> dict[str, Any]:
    """Packs the folder; its time and size."""
    began = time.perf_counter()
    make = partial(ImageFolder, resolution=SIDE, memory="disk")
    write_pack(make, str(root / "folder"), root / "packed")
    seconds, size = time.perf_counter() - began, sum(file.stat().st_size for file in root.glob("packed/*"))
    stored = sum(file.stat().st_size for file in root.glob("folder/*/*"))
    images = len(open_images("packed", root))
    return {
        "images": images, "seconds": seconds, "images/s": images / seconds,
        "MiB": size / 2**20, "MiB of the folder": stored / 2**20,
    }  # fmt: skip


def open_images(kind: str, root: Path) -> Any:
    """Stored samples, as files or as a tensor that is mapped."""
    cls, place = KINDS[kind]
    return cls(str(root / place), resolution=SIDE, memory="disk").load()[0]  # type: ignore[call-arg]


def index(entries: int, root: Path) -> dict[str, Any]:
    """Seconds that a folder takes which nobody knows, and one that is in the index.

    Its names are hard links to few images, in a thousand classes.
    """
    sources = write_folder(1 + entries // 50_000, root / "sources")  # a file system allows some 65,000 links
    classes = min(1000, entries)
    for number in range(entries):
        link = root / "many" / f"{number % classes:04}" / f"{number:07}.jpg"
        if number < classes:
            link.parent.mkdir(parents=True)
        link.hardlink_to(sources[number % len(sources)])
    time.sleep(TICK / 1e9)  # what changed just now is not kept
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        ImageFolder(str(root / "many"), num_classes=classes, memory="disk").load()
        seconds.append(time.perf_counter() - began)
    first, *later = seconds
    return {"names": entries, "unknown, s": first, "in the index, s": measure.show(later)}


class Part(ResumableBatchSampler):
    """The first batches of an epoch over all images."""

    def __init__(self, size: int, batch_size: int, limit: int) -> None:
        super().__init__(size, batch_size)
        self.limit = min(limit, size) // batch_size

    def batches(self, device: torch.device | str = "cpu") -> Iterator[tuple[int, Tensor]]:
        return islice(super().batches(device), self.limit)


class Rows:
    """A tensor as a map-style data set, so that workers read it."""

    fingerprint = ""

    def __init__(self, stored: Tensor) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> Tensor:
        return self.stored[index].clone()


def readers(root: Path, batch: int, limit: int, workers: list[int]) -> dict[str, Callable[[], int]]:
    """Functions that read `limit` images of each kind, in random order, and return their number."""

    def reader(stored: Any, number: int = 0) -> Callable[[], int]:
        loader = Loader(stored, None, Part(len(stored), batch, limit), memory="host", num_workers=number)
        return lambda: sum(len(real) for real, _ in loader)

    packed = open_images("packed", root)
    found = {"resident": reader(packed.clone()), "packed": reader(packed)}
    for kind in ("table", "shards", "folder", "zip"):
        if not (root / KINDS[kind][1]).exists():
            continue
        stored = open_images(kind, root)
        found |= {f"{kind}, {number} workers": reader(stored, number) for number in workers}
    return found


def weigh(kind: str, root: Path, workers: int) -> dict[str, float]:
    """MiB of this process and its workers, after they have read 20,000 images, shared pages in parts.

    `own` cannot be dropped by the system; `mapped` are pages of files.
    """
    stored = open_images(kind, root)
    stored = Rows(stored) if isinstance(stored, Tensor) else stored
    loader = Loader(stored, None, Part(len(stored), 64, 20_000), num_workers=workers)
    for _ in loader:
        pass
    found = Counter[str]()
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    assert len(children) >= workers
    for process in (str(os.getpid()), *children):
        rows = re.findall(
            r"^(Pss_Anon|Pss_File): +(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.M
        )
        for name, size in rows:
            found[{"Pss_Anon": "own", "Pss_File": "mapped"}[name]] += int(size) / 1024
    return dict(found)


def weigh_afresh(kind: str, root: Path, workers: int) -> dict[str, Any]:
    """`weigh` in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, kind, str(root), str(workers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {"kind": kind, "workers": workers, **{f"{name}, MiB": size for name, size in found.items()}}


if __name__ == "__main__":
    print(json.dumps(weigh(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
