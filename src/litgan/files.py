"""Files that are there whole or not at all, damaged ones, and what the user is told of them."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

PARTIAL = ".partial"  # how the hidden names of files end that are being written


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A hidden place beside `path` to write to, which becomes `path` in one step when the block ends.

    Where the block fails, what `path` held before is untouched and nothing is left beside it; a process that
    is killed leaves `.NAME.<random>.partial`, so that several machines may write at once. Makes the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@rank_zero_only
def warn(sentence: str) -> None:
    """Says on stderr what is no reason to stop; nor is it one that stderr goes to a full disk, too."""
    with suppress(OSError):
        print(f"litgan: {sentence}", file=sys.stderr, flush=True)


def rename_damaged(path: Path) -> None:
    """Renames what is damaged, `NAME.SUFFIX`, to `NAME.damaged-1.SUFFIX` or the next number that is free."""
    names = (path.with_name(f"{path.stem}.damaged-{number}{path.suffix}") for number in count(1))
    aside = path.rename(next(name for name in names if not os.path.lexists(name)))
    warn(f"{path} is damaged and kept as {aside.name}: what can be read of it goes on in a new file.")


@contextmanager
def ignore_disk_errors(what: str) -> Iterator[None]:
    """What is written in here shows a run, and the run goes on without it where the disk is full."""
    try:
        yield
    except OSError as error:
        if what not in refused:
            warn(f"{what} cannot be written ({error.strerror or error}): make room there. Training goes on.")
        refused.add(what)
    else:
        refused.discard(what)


refused: set[str] = set()  # what could not be written the last time, and was said
