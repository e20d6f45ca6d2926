"""Images in tables of Hugging Face's `datasets` and in the shards of WebDataset.

Both are read by random access, one image at a time. So what holds for files holds for them: the order is a
function of (seed, epoch), a run resumes exactly, also in the middle of an epoch, and N ranks are shown
together what one is. What has no random access (an `IterableDataset`, a compressed or remote shard) can be
trained on as a stock loader in Lightning's own Trainer, without these promises.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from litgan.data.archives import Tar
from litgan.data.checks import check_num_classes
from litgan.data.files import find_files
from litgan.data.image_files import SPLIT, SUFFIXES, ImageFiles
from litgan.data.images import StoredImages
from litgan.data.index import Index
from litgan.extras import require


class ArrowImages(StoredImages):
    """Images of a data set that `datasets` has written: `load_dataset(...).save_to_disk(root)`.

    Args:
        root: that folder. Of several splits those are used that it has.
        image: column of the images.
        label: column of the labels, integers from 0 on.
        options: those of `StoredImages`.
    """

    def __init__(self, root: str, image: str = "image", label: str = "label", **options: Any) -> None:
        super().__init__(root, **options)
        self.image, self.label = image, label
        several = Path(root).expanduser() / "dataset_dict.json"
        if several.is_file():
            self.splits = tuple(json.loads(several.read_text())["splits"])

    def open(self, split: str) -> tuple[ImageFiles, Tensor | None, Counter[str]]:
        datasets = require("datasets", "datasets")
        root = Path(self.root).expanduser()
        root = root / split if (root / "dataset_dict.json").is_file() else root
        try:
            table = datasets.load_from_disk(str(root))
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"{root} is no data set of `datasets` ({' '.join(str(error).split())}): give data.root a "
                "folder that its save_to_disk has written."
            ) from error
        if self.image not in table.column_names:
            known = ", ".join(table.column_names)
            raise ValueError(f"{root} has no column {self.image!r}: give data.image one of {known}.")
        labels = None
        if self.label in table.column_names:
            labels = torch.from_numpy(np.asarray(table[self.label][:], np.int64))
        if self.num_classes and labels is not None:
            names = getattr(table.features[self.label], "names", None)
            self.class_names = names or [str(number) for number in range(int(labels.max()) + 1)]
            check_num_classes(type(self).__name__, self.num_classes, len(self.class_names))
        return ArrowFiles(root, table, self.image, **self.image_options()), labels, Counter()


class ArrowFiles(ImageFiles):
    """The images of a column, by their numbers; the table is mapped, so that all processes share it.

    Args:
        root: folder of the table.
        table: a `datasets.Dataset`.
        column: of encoded images.
        options: those of `ImageFiles`.
    """

    def __init__(self, root: Path, table: Any, column: str, **options: Any) -> None:
        super().__init__(root, [str(number) for number in range(len(table))], **options)
        undecoded = require("datasets", "datasets").Image(decode=False)
        self.table, self.column = table.select_columns([column]).cast_column(column, undecoded), column
        self.index = index = Index(root)
        index("tables", lambda: find_files(root, (".arrow",), "table", folders=index.folders))

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self, sorted(self.root.glob("*.arrow")))

    def _open(self, name: str) -> BinaryIO:
        row = self.table[int(name)][self.column]
        return open(row["path"], "rb") if row["bytes"] is None else io.BytesIO(row["bytes"])


class ShardImages(StoredImages):
    """Images in the uncompressed .tar shards of WebDataset, on a disk: `KEY.jpg` beside `KEY.cls`.

    Args:
        root: folder of the shards; it may have {split} in it as in `ImageFolder`.
        label: suffix of the files that hold a sample's class, an integer from 0 on.
        options: those of `StoredImages`.
    """

    def __init__(self, root: str, label: str = "cls", **options: Any) -> None:
        super().__init__(root, **options)
        self.label = label

    def open(self, split: str) -> tuple[ImageFiles, Tensor | None, Counter[str]]:
        root = Path(self.root.replace(SPLIT, split)).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(f"There is no folder {root}: give data.root a folder of .tar shards.")
        index = Index(root)
        shards, _ = index(
            "shards", lambda: find_files(root, (".tar", ".tar.gz", ".tgz"), "shard", folders=index.folders)
        )
        paths = [root / name for name in shards]
        try:
            tar = Tar(paths, index("members", lambda: Tar(paths).members()))
        except (OSError, tarfile.TarError) as error:
            raise ValueError(
                f"A shard below {root} is no uncompressed .tar ({error}): unpack it with gunzip, or make it "
                "anew."
            ) from error
        images = [name for name in tar.names if name.lower().endswith(SUFFIXES)]
        if not images:
            raise FileNotFoundError(f"The shards below {root} hold no image: give data.root others.")
        files, labels = ShardFiles(root, tar, images, **self.image_options()), None
        files.index = index
        if self.num_classes:
            labels = torch.tensor(index(f"labels {self.label}", lambda: files.labels(self.label)))
            self.class_names = [str(number) for number in range(self.num_classes)]
        return files, labels, Counter()


class ShardFiles(ImageFiles):
    """Images in .tar shards.

    Args:
        root: folder of the shards.
        tar: their members.
        names: of the images among them.
        options: those of `ImageFiles`.
    """

    def __init__(self, root: Path, tar: Tar, names: list[str], **options: Any) -> None:
        super().__init__(root, names, **options)
        self.tar = tar

    @property
    def fingerprint(self) -> str:
        return _fingerprint(self, self.tar.paths)

    def labels(self, suffix: str) -> list[int]:
        """The class of each image. Raises ValueError: an image has none."""
        known, found = set(self.tar.names), list[int]()
        for name in self.names:
            path = PurePosixPath(name)
            member = str(path.with_name(f"{path.name.partition('.')[0]}.{suffix}"))
            if member not in known:
                raise ValueError(f"{self.root / name} has no {member} beside it: give num_classes 0.")
            found.append(int(self.tar.open(member).read()))
        return found

    def _open(self, name: str) -> BinaryIO:
        return self.tar.open(name)


def _fingerprint(files: ImageFiles, paths: list[Path]) -> str:
    """Hash of the options, and of names, sizes and times of change of the files that hold the images."""
    state = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    options = (files.resolution, files.channels, files.convert, files.value_range)
    return hashlib.blake2b(repr((options, state)).encode(), digest_size=16).hexdigest()
