"""Run folders: `<root>/<recipe>/<run id>/`, with all files of a run."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from litgan import checkpoints
from litgan.files import PARTIAL, warn

if sys.platform != "win32":
    import fcntl

ROOT = "runs"
RUN_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,128}")
NEEDED_BYTES = 256 * 2**20  # of free space at the start
PATIENCE = 5.0  # seconds for the process that had a run folder before to end


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; its name is the run's id, in W&B too."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def recipe(self) -> str:
        return self.path.parent.name

    def create(self) -> None:
        """Makes the folder, and removes the partial files of a killed process.

        Raises OSError: one sentence, if it cannot be made or too little space is free.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / "checkpoints", self.path / "samples"):
                for leftover in folder.glob(f".*{PARTIAL}"):
                    leftover.unlink(missing_ok=True)
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise _cannot_be_made(self.path, error) from error
        if free < NEEDED_BYTES:
            raise OSError(
                f"Only {free / 2**20:.0f} MiB are free for the run folder {self.path}: make it "
                f"{NEEDED_BYTES / 2**20:.0f} MiB, or give another place with --trainer.default_root_dir."
            )

    def absent(self) -> list[Path]:
        """Which of the folder and its parents do not exist, innermost first."""
        return [path.absolute() for path in (self.path, *self.path.parents) if not path.exists()]

    def remove(self, made: list[Path]) -> None:
        """Removes the folder if it is one of `made`, and its parents in `made` if they are empty then."""
        if self.path.absolute() in made:
            shutil.rmtree(self.path, ignore_errors=True)
            for path in made[1:]:
                with suppress(OSError):  # it contains another run
                    path.rmdir()

    def saved(self) -> list[Path]:
        """`last.ckpt` and `best.ckpt`, as far as they exist, the one written last first."""
        paths = [self.path / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")]
        return sorted((path for path in paths if path.is_file()), key=written_at, reverse=True)

    def newest_checkpoint(self) -> Path | None:
        """The readable one of `last.ckpt` and `best.ckpt` that was written last, if any."""
        for path in self.saved():
            try:
                checkpoints.read(path, mapped=True)
                return path
            except ValueError as error:
                warn(f"{error} It is skipped.")
        return None


class Lock:
    """Keeps other processes out of a run folder until it is released or this process ends.

    It is an flock on the folder itself, without a file. Processes on other machines notice it only if their
    common file system passes on the locks of folders; Windows has none.
    """

    def __init__(self) -> None:
        self.path, self.descriptor = Path(), -1
        self.made: list[Path] = []  # the folder and its parents that we made, innermost first

    def acquire(self, folder: RunFolder) -> None:
        """Makes and locks the folder, on rank zero; waits at most `PATIENCE` for another process.

        Raises:
            BlockingIOError: one sentence, if another process has it.
            OSError: one sentence, if it cannot be made.
        """
        machine = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or 0
        if getattr(rank_zero_only, "rank", 0) or int(machine):
            return
        self.path, end = folder.path, time.monotonic() + PATIENCE
        if sys.platform == "win32":
            self._make()
            return
        while not self._locked():
            if time.monotonic() > end:
                raise BlockingIOError(
                    f"Another process trains in the run folder {self.path}: wait until it has ended, or "
                    "start a run of its own with another LITGAN_RUN_ID."
                )
            time.sleep(0.1)
        os.register_at_fork(after_in_child=self._close)  # data workers may outlive a killed process

    def release(self) -> None:
        """Unlocks the folder; removes it if we made it and it is empty."""
        for path in self.made if self.descriptor >= 0 else ():
            with suppress(OSError):  # it is not empty
                path.rmdir()
        self._close()

    def _locked(self) -> bool:
        """Tries once; warns and goes on if the file system has no locks."""
        self._make()
        try:
            self.descriptor = os.open(self.path, os.O_RDONLY)
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(self.descriptor), os.stat(self.path)):
                return True
        except (BlockingIOError, FileNotFoundError):
            pass  # another process has it, or has just removed it
        except OSError as error:
            warn(
                f"The run folder {self.path} cannot be locked ({error.strerror}): "
                "make sure that no other process trains in it."
            )
            return True
        self._close()
        return False

    def _make(self) -> None:
        """Makes the folder unless it exists; records what was made by us, and not by another process."""
        absent = RunFolder(self.path).absent()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir()
        except FileExistsError:
            return
        except OSError as error:
            raise _cannot_be_made(self.path, error) from error
        self.made = absent

    def _close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


def _cannot_be_made(path: Path, error: OSError) -> OSError:
    return OSError(
        f"The run folder {path} cannot be made ({error.strerror}): "
        "give another place with --trainer.default_root_dir."
    )


def new_run(root: str | Path, recipe: str) -> RunFolder:
    """The folder of a run id: `LITGAN_RUN_ID`, a SLURM job and its step, or a new one.

    Processes launched from here inherit it; a requeued SLURM job keeps its numbers.

    Raises ValueError if the id cannot name a folder.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    run_id = os.environ.get("LITGAN_RUN_ID") or (f"slurm-{job}-{step}" if job and step else "")
    run_id = run_id or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    check_run_id(run_id, "LITGAN_RUN_ID's")
    os.environ["LITGAN_RUN_ID"] = run_id
    return RunFolder(Path(root) / recipe / run_id)


def check_run_id(run_id: object, whose: str) -> None:
    """Raises a ValueError that begins with `whose` if a run id cannot name a folder."""
    if not (isinstance(run_id, str) and RUN_ID.fullmatch(run_id)):
        raise ValueError(
            f"{whose} run id {str(run_id)[:128]!r} cannot name a folder: give at most 128 letters, digits, "
            "dots, underscores and hyphens, not dots alone."
        )


def find_checkpoint(wanted: str, root: str | Path, recipe: str) -> Path | None:
    """The checkpoint that `wanted` names: a path, or "last" for the newest of the recipe's runs, if any.

    The newest is the one written last, among runs and within a run, however many images it has seen.
    Unreadable ones are skipped with a warning; older files that were kept are not considered.

    Raises FileNotFoundError if there is no such path, or if none of the runs' checkpoints can be read.
    """
    if wanted != "last":
        checkpoints.read(wanted, mapped=True)
        return Path(wanted)
    found = [run for path in Path(root, recipe).glob("*") if (run := RunFolder(path)).saved()]
    if not found:
        warn(f"No run in {Path(root, recipe)} has a checkpoint yet: a new run starts.")
        return None
    for run in sorted(found, key=lambda run: written_at(run.saved()[0]), reverse=True):
        if newest := run.newest_checkpoint():
            return newest
    raise FileNotFoundError(
        f"No checkpoint in {Path(root, recipe)} can be read: start a new run without --ckpt_path."
    )


def run_folder_of(checkpoint: Path, own: RunFolder) -> RunFolder:
    """The run folder that contains a checkpoint; for a moved one a folder of its run id beside `own`."""
    saved = _verified(checkpoint)["litgan"].get("recipe", {}).get("run_id", own.run_id)
    found = run_of(checkpoint)
    if found is None or found.run_id != saved:
        check_run_id(saved, "The checkpoint's")
    return found or RunFolder(own.path.with_name(saved))


def images_seen(checkpoint: Path) -> int:
    """The clock of a checkpoint that has been found."""
    return checkpoints.clock(_verified(checkpoint))[0]


def _verified(checkpoint: Path) -> dict[str, Any]:
    """The content of a checkpoint that has been found, and so verified; tensors are not read."""
    return checkpoints.read(checkpoint, verify=False, mapped=True)


def written_at(path: Path) -> int:
    return path.stat().st_mtime_ns


def run_of(checkpoint: Path) -> RunFolder | None:
    """The run folder that contains a checkpoint, if any."""
    folder = checkpoint.resolve().parent
    return RunFolder(folder.parent) if folder.name == "checkpoints" else None
