"""Files that are there whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL = ".partial"  # how the hidden names of files end that are being written


@contextmanager
def whole(path: Path) -> Iterator[Path]:
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
