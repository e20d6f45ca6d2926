"""Atomic writes, warnings, damaged files and full disks."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

if sys.platform != "win32":
    import fcntl

PARTIAL = ".partial"  # how the hidden names of files end that are being written


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Gives a hidden file beside `path` to write to, and renames it to `path` when the block ends.

    If the block fails, the old file at `path` stays and the hidden one is removed; a killed process leaves
    `.NAME.<random>.partial`. Several machines may write at once. Makes the folder.

    Raises OSError if the disk refuses, also where the block raises a RuntimeError for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    except RuntimeError as error:  # as which torch reports what the disk refuses
        if not isinstance(error.__context__, OSError):
            raise
        raise error.__context__ from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def cache_folder(given: str | Path | None = None) -> Path:
    """The given folder, else $LITGAN_CACHE, else ~/.cache/litgan."""
    return Path(given or os.environ.get("LITGAN_CACHE") or "~/.cache/litgan").expanduser()


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Processes of one machine run this block one after the other; makes the folder, which is their lock.

    Where there are no locks, as on Windows, they run it together.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_output(path: str | Path, *, folder: bool = False) -> None:
    """Raises OSError, one sentence, if no file can be written at `path`, or into it if it is a `folder`."""
    path = Path(path)
    above = next(one for one in ([path] if folder else []) + [*path.absolute().parents] if one.exists())
    reason = "it is a folder" if not folder and path.is_dir() else ""
    if not above.is_dir():
        reason = f"{above} is no folder"
    elif not os.access(above, os.W_OK | os.X_OK):
        reason = f"{above} is not writable"
    if reason:
        raise OSError(f"Nothing can be written to {path} ({reason}): give another --out.")


@contextmanager
def writing_output(path: str | Path) -> Iterator[None]:
    """Turns an OSError of this block into a sentence that names `path`."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} cannot be written {disk_error(error)}, or give another --out.") from error


@rank_zero_only
def warn(sentence: str) -> None:
    """Prints a warning on stderr, which may be a file on a full disk."""
    with suppress(OSError):
        print(f"litgan: {sentence}", file=sys.stderr, flush=True)


def rename_damaged(path: Path) -> None:
    """Renames the damaged file `NAME.SUFFIX` to `NAME.damaged-1.SUFFIX` or the next free number."""
    names = (path.with_name(f"{path.stem}.damaged-{number}{path.suffix}") for number in count(1))
    damaged = path.rename(next(name for name in names if not os.path.lexists(name)))
    warn(f"{path} is damaged and stays as {damaged.name}: what can be read of it goes on in a new file.")


IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
REMEDIES = {
    "make room there": (errno.ENOSPC, errno.EDQUOT),
    "allow larger files (ulimit -f)": (errno.EFBIG,),
    "allow writing there": (errno.EACCES, errno.EPERM, errno.EROFS),
    "move that away": IN_THE_WAY,
}


def disk_error(error: OSError) -> str:
    """Why a file could not be written and what to do about it, as part of a sentence: "(reason): remedy"."""
    remedy = next((it for it, numbers in REMEDIES.items() if error.errno in numbers), "choose another place")
    reason, name = error.strerror or error, error.filename2 or error.filename
    if error.errno in IN_THE_WAY and name:
        reason = f"{reason}: {next(it for it in (Path(name), *Path(name).absolute().parents) if it.exists())}"
    return f"({reason}): {remedy}"


@contextmanager
def ignore_disk_errors(output: str) -> Iterator[None]:
    """For output that training can do without: an OSError becomes one warning until a write succeeds."""
    try:
        yield
    except OSError as error:
        if output not in unwritten:
            warn(f"{output} cannot be written {disk_error(error)}. Training goes on.")
        unwritten.add(output)
    else:
        unwritten.discard(output)


unwritten: set[str] = set()  # outputs whose last write failed: each failure is reported once
