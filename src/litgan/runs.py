"""Run folders: `<root>/<recipe>/<run id>/`, with everything that a run leaves behind."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from litgan import checkpoints

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
        """Makes the folder.

        Raises:
            OSError: one sentence, if it cannot be made or too little space is left in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
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


def new_run(root: str | Path, recipe: str) -> RunFolder:
    """A folder with a fresh id, the same one in all processes that this one launches."""
    run_id = os.environ.get("LITGAN_RUN_ID") or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    os.environ["LITGAN_RUN_ID"] = run_id
    return RunFolder(Path(root) / recipe / run_id)


def find_checkpoint(wanted: str, root: str | Path, recipe: str) -> Path:
    """The checkpoint that `wanted` names: a path, or "last" for the newest readable one of the recipe's runs.

    Raises:
        FileNotFoundError: if there is none.
    """
    if wanted != "last":
        checkpoints.read(wanted)
        return Path(wanted)
    found = sorted(Path(root, recipe).glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    for path in reversed(found):
        try:
            checkpoints.read(path)
            return path
        except ValueError:
            continue
    raise FileNotFoundError(
        f"No run in {Path(root, recipe)} has a checkpoint to resume from: start one without --ckpt_path."
    )


def run_of(checkpoint: Path) -> RunFolder | None:
    """The run folder that a checkpoint lies in, if it does."""
    folder = checkpoint.resolve().parent
    return RunFolder(folder.parent) if folder.name == "checkpoints" else None
