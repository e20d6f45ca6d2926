"""Files of a data set: which there are, their classes, reading by several threads, and unusable ones."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from tqdm import tqdm

_T = TypeVar("_T")
_R = TypeVar("_R")

PATIENCE = 5  # seconds before a progress bar appears
REMEDY = "replace or remove it"
SHOWN = 20  # unusable files that a message names
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval"}


class UnusableFileError(ValueError):
    """A file of a data set, or several of them, that cannot be used."""

    def __init__(self, path: Path | str, reason: str, remedy: str = REMEDY) -> None:
        super().__init__(path, reason, remedy)  # all of them, so that the error can be pickled
        self.path, self.reason, self.remedy = path, reason, remedy

    def __str__(self) -> str:
        return f"{self.path} {self.reason}: {self.remedy}."


class Found(NamedTuple):
    """Sorted names of files, and the number of others by suffix."""

    names: list[str]
    others: Counter[str]


@dataclass
class FileCount:
    """Files that a split was read from, files held out for others, and what was left out for which reason."""

    read: int
    held_out: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    remark: str = ""

    def __str__(self) -> str:
        held_out = f" ({self.held_out:,} more are held out)" if self.held_out else ""
        ranked = sorted(self.left_out.items(), key=lambda pair: (-pair[1], pair[0]))
        reasons = [f"{number:,} {reason}" for reason, number in ranked]
        left_out = f"; left out: {', '.join(reasons[:9])}{', ...' * (len(reasons) > 9)}" if reasons else ""
        return f" of {self.read:,} file{'s' * (self.read != 1)}{held_out}{left_out}{self.remark}"


def find_files(
    root: Path, suffixes: tuple[str, ...], kind: str, names: Iterable[str] | None = None,
    folders: dict[str, list[int]] | None = None,
) -> Found:  # fmt: skip
    """The files of some types anywhere below `root`, by their names relative to it, or among `names`.

    `folders` gets those that are listed (see `Index`). Links are followed, but not to a folder that they lie
    in. Hidden files and folders, and macOS's `__MACOSX`, are left out without being counted.

    Raises:
        FileNotFoundError: there is none.
        OSError: a folder or a link cannot be read.
    """
    found, others = list[str](), Counter[str]()
    for name in walk(root, folders) if names is None else names:
        if any(part.startswith((".", "__MACOSX")) for part in name.split("/")):
            continue
        if name.lower().endswith(suffixes):
            found.append(name)
        elif not name.endswith("/"):  # a folder of an archive
            others[PurePosixPath(name).suffix.lower() or "without a suffix"] += 1
    if not found:
        raise FileNotFoundError(f"{root} holds no {kind}: put files of type {', '.join(suffixes)} into it.")
    return Found(sorted(found), others)


def walk(
    root: Path, folders: dict[str, list[int]] | None = None, below: str = "",
    above: tuple[tuple[int, int], ...] = (),
) -> Iterator[str]:  # fmt: skip
    """Names, relative to `root`, of the regular files below its subfolder `below/`, not hidden ones."""
    path: os.PathLike[str] = root / below
    try:
        info = os.stat(path)
        if (info.st_dev, info.st_ino) in above:  # a link to a folder that it lies in
            return
        if folders is not None:  # before it is listed: a later change is noticed
            folders[below] = [info.st_mtime_ns, info.st_size]
        inner = list[str]()
        with os.scandir(path) as entries:  # knows most types without asking for each
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = entry
                if entry.is_symlink():
                    entry.stat()  # else a link that leads nowhere would be left out
                if entry.is_dir():
                    inner.append(f"{below}{entry.name}/")
                elif entry.is_file():
                    yield f"{below}{entry.name}"
    except OSError as error:
        link = Path(path).is_symlink()
        raise type(error)(
            f"{os.fspath(path)} cannot be read ({error.strerror}): "
            f"{'mend or remove this link' if link else 'allow it, or move it elsewhere'}."
        ) from error
    for name in inner:
        yield from walk(root, folders, name, (*above, (info.st_dev, info.st_ino)))


def check_folder(root: Path, kind: str) -> Path:
    """`root`, if it is a folder.

    Raises:
        FileNotFoundError: there is nothing.
        NotADirectoryError: it is a file, such as an archive.
    """
    if root.is_dir():
        return root
    if root.exists():
        raise NotADirectoryError(
            f"{root} is a file, and {kind}s are read from a folder: unpack it if it is an archive, and give "
            "data.root its folder."
        )
    raise FileNotFoundError(f"There is no folder {root}: give data.root a folder of {kind}s.")


def label_by_folder(
    root: Path, names: Sequence[str], num_classes: int, kind: str
) -> tuple[Tensor, list[str]]:
    """Labels, int64 [N], of files by their first-level subfolder, and the sorted names of these.

    One outer folder around several classes does not count as a level.

    Raises ValueError: a file lies in no subfolder, there are not `num_classes` of them, or they are splits.
    """
    own = [name.rpartition("/")[0] for name in names]
    if "" in own:
        raise ValueError(
            f"{root / names[own.index('')]} lies in no subfolder and so has no class: move it into one, "
            "or give num_classes 0."
        )
    parts = {folder: folder.split("/") for folder in dict.fromkeys(own)}  # few: a million names take seconds
    outer = list[str]()
    while num_classes > 1 and len({first for first, *_ in parts.values()}) == 1:
        if not all(rest for _, *rest in parts.values()):
            break
        outer.append(next(iter(parts.values()))[0])
        parts = {folder: part[1:] for folder, part in parts.items()}
    _check_level(root, outer, list(parts.values()), num_classes)
    folders = sorted({part[0] for part in parts.values()})
    if len(folders) != num_classes:
        shown = ", ".join(folders[:5]) + (", ..." if len(folders) > 5 else "")
        raise ValueError(
            f"{root} has {len(folders)} subfolders with {kind}s ({shown}) where num_classes is "
            f"{num_classes}: give num_classes {len(folders)}, or 0 to ignore them."
        )
    places = {folder: place for place, folder in enumerate(folders)}
    labels = {folder: places[part[0]] for folder, part in parts.items()}
    return torch.tensor([labels[folder] for folder in own]), folders


def _check_level(root: Path, outer: list[str], parts: list[list[str]], num_classes: int) -> None:
    """Raises ValueError if the classes are one level deeper, below splits or folders of other meaning."""
    inner: dict[str, set[str]] = {}
    for part in parts:
        inner.setdefault(part[0], set()).update(part[1:2])
    same = len({frozenset(each) for each in inner.values()}) == 1
    deeper = same and len(inner) != num_classes == len(next(iter(inner.values())))
    if len(inner) > 1 and ({folder.lower() for folder in inner} <= SPLITS or deeper):
        first = next((folder for folder in inner if folder.lower().startswith("train")), min(inner))
        unpack, folder = ("", root) if root.is_dir() else ("unpack it and ", root.with_suffix(""))
        raise ValueError(
            f"The subfolders {', '.join(sorted(inner))} of {root.joinpath(*outer)} are no classes: "
            f"{unpack}give data.root {folder.joinpath(*outer, first)}, or num_classes 0 to ignore subfolders."
        )


def threaded(function: Callable[[_T], _R], items: Iterable[_T], ahead: int = 1024) -> Iterator[_R]:
    """`map(function, items)`, in order, by a pool of threads that runs at most `ahead` items ahead."""
    items = iter(items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while part := list(islice(items, ahead)):
            yield from pool.map(function, part)


def read_each(
    read: Callable[[_T], _R],
    items: Sequence[_T],
    task: str,
    *,
    skip: bool | None = None,
    threads: bool = True,
) -> Iterator[_R | None]:
    """`read` of each item, in order, with a progress bar if that takes long; None if it is unusable.

    Args:
        task: what the bar says, such as "reading sounds".
        skip: whether unusable files may be left out; None if there is no option for it.
        threads: read by several threads.

    Raises:
        UnusableFileError: at the end, if not `skip`; it names all unusable files.
    """
    results = (threaded if threads else map)(partial(_attempt, read), items)
    flaws: list[UnusableFileError] = []
    for result in progress(results, task, len(items)):
        if not isinstance(result, UnusableFileError):
            yield result
            continue
        if not skip:
            flaws.append(result)
        yield None
    if flaws:
        raise merge(flaws, "" if skip is None else ", or give --data.skip_unusable true")


def merge(flaws: Sequence[UnusableFileError], option: str = "") -> UnusableFileError:
    """One error that names all the files, and the `option` that leaves them out."""
    kinds = dict.fromkeys(flaw.remedy for flaw in flaws)
    remedies = ", or ".join(kinds) + (option if REMEDY in kinds or len(flaws) > 1 else "")
    if len(flaws) == 1:
        return UnusableFileError(flaws[0].path, flaws[0].reason, remedies)
    shown = "; ".join(f"{flaw.path} {flaw.reason}" for flaw in flaws[:SHOWN])
    more = f"; and {len(flaws) - SHOWN:,} more" if len(flaws) > SHOWN else ""
    return UnusableFileError(f"{len(flaws):,} files", f"cannot be used ({shown}{more})", remedies)


def _attempt(read: Callable[[_T], _R], item: _T) -> _R | UnusableFileError:
    try:
        return read(item)
    except UnusableFileError as error:
        return error


def progress(items: Iterable[_T], task: str, total: int | None = None, **options: object) -> Iterator[_T]:
    """The items, with a bar on rank zero's stderr once they have taken `PATIENCE` seconds."""
    hidden = getattr(rank_zero_only, "rank", 0) not in (0, None)
    yield from tqdm(
        items, task, total, file=sys.stderr, delay=PATIENCE, disable=hidden, leave=False, **options
    )
