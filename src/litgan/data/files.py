"""Folders of files: their names, classes from subfolders, reading by several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

_T = TypeVar("_T")
_R = TypeVar("_R")


def list_files(
    root: Path, suffixes: tuple[str, ...], kind: str, names: Iterable[str] | None = None
) -> list[str]:
    """Sorted names, relative to `root`, of the files of some types anywhere below it, or among `names`.

    Hidden files and folders, and macOS's `__MACOSX`, are left out.

    Raises:
        FileNotFoundError: there is none.
    """
    if names is None:
        names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    found = sorted(
        name
        for name in names
        if name.lower().endswith(suffixes)
        and not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    )
    if not found:
        raise FileNotFoundError(f"{root} holds no {kind}: put files of type {', '.join(suffixes)} into it.")
    return found


def label_by_folder(root: Path, names: list[str], num_classes: int, kind: str) -> tuple[Tensor, list[str]]:
    """Labels, int64 [N], of files by their first-level subfolder, and the sorted names of these.

    Raises:
        ValueError: a file lies in no subfolder, or there are not `num_classes` of them.
    """
    for name in names:
        if "/" not in name:
            raise ValueError(
                f"{root / name} lies in no subfolder and so has no class: move it into one, "
                "or give num_classes 0."
            )
    folders, labels = np.unique([name.split("/")[0] for name in names], return_inverse=True)
    if len(folders) != num_classes:
        shown = ", ".join(folders[:5]) + (", ..." if len(folders) > 5 else "")
        raise ValueError(
            f"{root} has {len(folders)} subfolders with {kind}s ({shown}) where num_classes is "
            f"{num_classes}: give num_classes {len(folders)}, or 0 to ignore them."
        )
    return torch.from_numpy(labels), folders.tolist()


def threaded(function: Callable[[_T], _R], items: Iterable[_T], ahead: int = 1024) -> Iterator[_R]:
    """`map(function, items)`, in order, by a pool of threads that runs at most `ahead` items ahead."""
    items = iter(items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while part := list(islice(items, ahead)):
            yield from pool.map(function, part)
