"""Run folders: `<root>/<recipe>/<run id>/`, with everything that a run leaves behind."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from litgan import checkpoints
from litgan.files import PARTIAL
from litgan.messages import warn

ROOT = "runs"
NEEDED_BYTES = 256 * 2**20  # free space without which a run is not begun


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
        """Makes the folder, and removes what a killed process left half-written in it.

        Raises:
            OSError: one sentence, if it cannot be made or too little space is left in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for folder in (self.path, self.path / "checkpoints", self.path / "samples"):
                for leftover in folder.glob(f".*{PARTIAL}"):
                    leftover.unlink(missing_ok=True)
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise OSError(
                f"The run folder {self.path} cannot be made ({error.strerror}): "
                "give another place with --trainer.default_root_dir."
            ) from error
        if free < NEEDED_BYTES:
            raise OSError(
                f"Only {free / 2**20:.0f} MiB are free for the run folder {self.path}: make it "
                f"{NEEDED_BYTES / 2**20:.0f} MiB, or give another place with --trainer.default_root_dir."
            )

    def absent(self) -> list[Path]:
        """The folder and those that it lies in, as far as they are not there yet, innermost first."""
        return [path for path in (self.path, *self.path.parents) if not path.exists()]

    def remove(self, made: list[Path]) -> None:
        """Removes the folder, if it is among those that were made, and of the others what is empty then."""
        if self.path in made:
            shutil.rmtree(self.path, ignore_errors=True)
            for path in made[1:]:
                with suppress(OSError):  # another run lives there
                    path.rmdir()

    def saved(self) -> list[Path]:
        """`last.ckpt` and `best.ckpt`, if they are there, what was written last first; none set aside."""
        paths = [self.path / "checkpoints" / name for name in ("last.ckpt", "best.ckpt")]
        return sorted((path for path in paths if path.is_file()), key=written_at, reverse=True)

    def newest_checkpoint(self) -> Path | None:
        """The readable one of `last.ckpt` and `best.ckpt` that was written last, if there is any."""
        for path in self.saved():
            try:
                checkpoints.read(path)
                return path
            except ValueError as error:
                warn(f"{error} It is passed over.")
        return None


def new_run(root: str | Path, recipe: str) -> RunFolder:
    """A folder whose name is given from outside, or fresh and the same in all processes launched from here.

    `LITGAN_RUN_ID` gives it, and so do a SLURM job and its step, which keep their numbers when requeued.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    run_id = os.environ.get("LITGAN_RUN_ID") or (f"slurm-{job}-{step}" if job and step else "")
    run_id = run_id or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    os.environ["LITGAN_RUN_ID"] = run_id
    return RunFolder(Path(root) / recipe / run_id)


def find_checkpoint(wanted: str, root: str | Path, recipe: str) -> Path:
    """The checkpoint that `wanted` names: a path, or "last" for the newest of the recipe's runs.

    Newest is what was written last, among runs and within a run, however many images it has seen. What
    cannot be read is passed over, with a sentence on stderr; what was set aside is never considered.

    Raises:
        FileNotFoundError: if there is none.
    """
    if wanted != "last":
        checkpoints.read(wanted)
        return Path(wanted)
    found = [run for path in Path(root, recipe).glob("*") if (run := RunFolder(path)).saved()]
    for run in sorted(found, key=lambda run: written_at(run.saved()[0]), reverse=True):
        if newest := run.newest_checkpoint():
            return newest
    raise FileNotFoundError(
        f"No run in {Path(root, recipe)} has a checkpoint to resume from: start one without --ckpt_path."
    )


def written_at(path: Path) -> int:
    return path.stat().st_mtime_ns


def run_of(checkpoint: Path) -> RunFolder | None:
    """The run folder that a checkpoint lies in, if it does."""
    folder = checkpoint.resolve().parent
    return RunFolder(folder.parent) if folder.name == "checkpoints" else None


@contextmanager
def dispensable(what: str) -> Iterator[None]:
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
