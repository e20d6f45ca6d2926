"""A data set as arrays that are mapped into memory: all processes of a machine share its page cache.

`litgan pack` writes a folder which a data set with this `root` reads instead of its files, with the same
batches and the same fingerprint:

    pack.json               class, options, names of classes, fingerprints
    SPLIT.npy               stored samples [N, ...], as NumPy writes them
    SPLIT_condition.npy     labels [N] or stored conditions [N, ...], if there are some
    SPLIT_names.json        the file of each sample, if it has one
"""

from __future__ import annotations

import inspect
import json
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litgan.condition import as_plain
from litgan.data.checks import check_finite
from litgan.data.files import read_each
from litgan.files import PARTIAL, writing_output
from litgan.rebuild import is_sentence

INDEX, FORMAT = "pack.json", 1
SAME = "condition_is_sample"  # in the index


def write_pack(make: Callable[[str], Any], folder: str, out: Path) -> None:
    """Reads all splits of the data set `make(folder)` and writes them to the folder `out`, all or nothing.

    Raises:
        FileExistsError: `out` exists.
        OSError: one sentence, if it cannot be written.
        ValueError: samples cannot be used.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: remove it, or give another place for the pack.")
    data, partial = make(folder), out.with_name(f".{out.name}.{secrets.token_hex(4)}{PARTIAL}")
    splits = {split: data.read(split) for split in data.splits}
    known = (*inspect.signature(type(data).__init__).parameters, *data.stored_options)
    index = {
        "pack": FORMAT, "class": type(data).__name__, "condition": as_plain(data.condition),
        "splits": list(splits), "class_names": list(data.class_names or ()), "fingerprints": {},
        SAME: [split for split, (samples, condition) in splits.items() if samples is condition],
        "options": {name: getattr(data, name) for name in known if hasattr(data, name)},
    }  # fmt: skip
    try:
        with writing_output(out):
            partial.mkdir(parents=True)
            for split, (samples, condition) in splits.items():
                _write(partial / f"{split}.npy", samples)
                if condition is not None and condition is not samples:
                    _write(partial / f"{split}_condition.npy", condition)
                if names := getattr(samples, "names", None):
                    (partial / f"{split}_names.json").write_text(json.dumps(names))
            (partial / INDEX).write_text(json.dumps(index))
        packed = make(str(partial))
        for split in data.splits:
            for part in packed.load(split):
                check_finite(part, f"Sample {{}} of {type(data).__name__} ({split})")
            packed.fingerprint_of(split)
        with writing_output(out):
            (partial / INDEX).write_text(json.dumps(index | {"fingerprints": packed._fingerprints}, indent=2))
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(path: Path, stored: Any) -> None:
    """A tensor or files as one array; files are read by several threads."""
    if isinstance(stored, Tensor):
        np.save(path, stored.numpy())
        return
    first = stored[0].numpy()
    needed, free = first.nbytes * len(stored), shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(f"{needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free")
    array = np.lib.format.open_memmap(path, "w+", first.dtype, (len(stored), *first.shape))
    for place, one in enumerate(read_each(stored.__getitem__, range(len(stored)), "packing")):
        if one is not None:  # else an error follows
            array[place] = one
    array.flush()


def read_pack(data: Any, split: str) -> tuple[Tensor, Tensor | None] | None:
    """Samples and conditions of a split, mapped, if `data.root` is a pack; gives `data` its fingerprint.

    Raises ValueError: the pack is damaged, or of other data than `data`.
    """
    root = getattr(data, "root", None)
    if not isinstance(root, str) or not (index := _index(root)):
        return None
    folder = Path(root).expanduser()
    with _explain(root):
        found = {**index["options"], "class": index["class"], "condition": index["condition"]}
        samples, own = _mapped(folder / f"{split}.npy"), folder / f"{split}_condition.npy"
        condition = samples if split in index[SAME] else _mapped(own) if own.exists() else None
        names = index["class_names"]
        data._fingerprints |= index["fingerprints"]
    wanted = {"class": type(data).__name__, "condition": as_plain(data.condition) or found["condition"]}
    wanted |= {name: getattr(data, name) for name in data.stored_options}
    for name, value in json.loads(json.dumps(wanted)).items():
        if found.get(name) != value:
            raise ValueError(
                f"The pack {root} has {name} {found.get(name)} and the data set {value}: give the same, or "
                "pack the data again."
            )
    if data.num_classes:
        data.class_names = names or None
    return samples, condition


def packed_splits(root: str) -> tuple[str, ...]:
    """The splits of a pack; none if there is none at `root`."""
    with _explain(root):
        return tuple((_index(root) or {"splits": ()})["splits"])


def _index(root: str) -> dict[str, Any] | None:
    """The index of the pack at `root`, if there is one."""
    path = Path(root).expanduser() / INDEX
    if not path.is_file():
        return None
    with _explain(root):
        index = json.loads(path.read_text())
        return index if "pack" in index else None  # else a file of somebody else


@contextmanager
def _explain(root: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        if is_sentence(error):
            raise
        raise ValueError(f"The pack {root} is damaged ({error}): pack the data again.") from error


def _mapped(path: Path) -> Tensor:
    """The array in a file, mapped, which must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.load(path, mmap_mode="r"))
