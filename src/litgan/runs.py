"""Run folders: `<root>/<recipe>/<run id>/`, with everything that a run leaves behind."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from litgan import checkpoints
from litgan.files import PARTIAL

ROOT = "runs"
RUN_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,128}")
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

    def newest_checkpoint(self) -> Path | None:
        """The readable one of `last.ckpt` and `best.ckpt` that has seen more images, if there is any."""
        seen: dict[Path, int] = {}
        for name in ("last.ckpt", "best.ckpt"):
            path = self.path / "checkpoints" / name
            try:
                seen[path] = checkpoints.read(path)["litgan"]["images_seen"]
            except FileNotFoundError:
                continue
            except ValueError as error:
                warn(f"{error} It is passed over.")
        return max(seen, key=seen.__getitem__, default=None)


def new_run(root: str | Path, recipe: str) -> RunFolder:
    """A folder whose name is given from outside, or fresh and the same in all processes launched from here.

    `LITGAN_RUN_ID` gives it, and so do a SLURM job and its step, which keep their numbers when requeued.

    Raises:
        ValueError: if what is given is no name of a folder.
    """
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID")
    run_id = os.environ.get("LITGAN_RUN_ID") or (f"slurm-{job}-{step}" if job and step else "")
    run_id = run_id or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    check_run_id(run_id, "LITGAN_RUN_ID's")
    os.environ["LITGAN_RUN_ID"] = run_id
    return RunFolder(Path(root) / recipe / run_id)


def check_run_id(run_id: object, whose: str) -> None:
    """Refuses as a run id what is no name of a folder.

    Args:
        run_id: to check.
        whose: says in the error where it is from.

    Raises:
        ValueError: one sentence.
    """
    if not (isinstance(run_id, str) and RUN_ID.fullmatch(run_id)):
        raise ValueError(
            f"{whose} run id {str(run_id)[:128]!r} cannot name a folder: give at most 128 letters, digits, "
            "dots, underscores and hyphens, not dots alone."
        )


def find_checkpoint(wanted: str, root: str | Path, recipe: str) -> Path:
    """The checkpoint that `wanted` names: a path, or "last" for the newest of the recipe's runs.

    Among runs the one that wrote last counts, within it the checkpoint that has seen most images; those
    that cannot be read are passed over, with a sentence on stderr.

    Raises:
        FileNotFoundError: if there is none.
    """
    if wanted != "last":
        checkpoints.read(wanted)
        return Path(wanted)
    found = sorted(Path(root, recipe).glob("*/checkpoints/*.ckpt"), key=lambda path: -path.stat().st_mtime)
    for folder in dict.fromkeys(path.parent.parent for path in found):
        if newest := RunFolder(folder).newest_checkpoint():
            return newest
    raise FileNotFoundError(
        f"No run in {Path(root, recipe)} has a checkpoint to resume from: start one without --ckpt_path."
    )


def run_of(checkpoint: Path) -> RunFolder | None:
    """The run folder that a checkpoint lies in, if it does."""
    folder = checkpoint.resolve().parent
    return RunFolder(folder.parent) if folder.name == "checkpoints" else None


@rank_zero_only
def warn(sentence: str) -> None:
    """Says on stderr what is no reason to stop; nor is it one that stderr goes to a full disk, too."""
    with suppress(OSError):
        print(f"litgan: {sentence}", file=sys.stderr, flush=True)


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
