"""Loggers: Weights & Biases over `images_seen`, and a CSV file for everybody without an account."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from litgan import runs
from litgan.files import whole
from litgan.media import Media

CLOCK = "images_seen"


class WandbLogger(LightningWandbLogger):
    """Lightning's logger with one x axis, `images_seen`, for every scalar, picture and metric.

    Online when somebody is logged in (or WANDB_MODE says so), offline otherwise.
    """

    clock = 0

    @property
    def experiment(self) -> Any:
        fresh = self._experiment is None
        self._wandb_init.pop("anonymous", None)  # Lightning's; W&B knows it no more and warns
        run = super().experiment
        if fresh and getattr(rank_zero_only, "rank", 0) == 0:
            run.define_metric(CLOCK, hidden=True)
            run.define_metric("*", step_metric=CLOCK, step_sync=True, overwrite=True)  # Lightning's own
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        # Lightning's own calls count batches; they get the clock of our last call.
        self.clock = int(metrics.get(CLOCK, self.clock))
        super().log_metrics({**metrics, CLOCK: self.clock}, step=None)


def wandb_logger(folder: Path, *, project: str, run_id: str, name: str) -> WandbLogger:
    """The run `run_id` of W&B, continued where it exists, its files under `folder`/wandb."""
    if getattr(rank_zero_only, "rank", 0) == 0:  # others, on other machines, do not know its name
        folder.mkdir(parents=True, exist_ok=True)
    import wandb

    return WandbLogger(
        project=project, id=run_id, name=name, group=name.split("/")[0], save_dir=str(folder),
        mode=os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline"),
        settings=wandb.Settings(silent=True),
    )  # fmt: skip


def _logged_in() -> bool:
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except TypeError:  # versions before `prompt`
        return bool(wandb.api.api_key)


def log_picture(trainer: Trainer, name: str, picture: Tensor, media: Media | None = None) -> None:
    """Sends a picture, uint8 [H, W, 3], to every W&B logger, with what plays the media that it shows."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            players = {} if media is None else media.players()
            shown = {f"{name}/{kind}": player for kind, player in players.items()}
            shown |= {name: wandb.Image(picture.cpu().numpy())}
            logger.log_metrics({**shown, "images_seen": trainer.lightning_module.images_seen})


class CSVLogger(Logger):
    """One row per `images_seen`, one column per key, in one file that grows with the run.

    Every value is on disk as soon as it is logged; what a full disk refuses is left out. A resumed run
    goes on in the same file: rows beyond the checkpoint's clock, from the part of the run that was lost,
    are dropped.

    Args:
        path: of the file.
        resumed_at: the checkpoint's clock, 0 for a new run.
    """

    def __init__(self, path: Path, resumed_at: int = 0) -> None:
        super().__init__()
        self.path, self.resumed_at = Path(path), resumed_at
        self.row: dict[str, float] = {}  # the last one, to which further keys of the same clock are added
        self.start = 0  # of that row in the file
        self.columns: list[str] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return self.path.parent.name

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        scalars = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
        if CLOCK not in scalars or len(scalars) == 1:
            return
        with runs.dispensable(f"A row of {self.path}"):
            self._write(scalars)

    def _write(self, scalars: dict[str, float]) -> None:
        if not self.columns:
            self._open()
        if scalars[CLOCK] != self.row.get(CLOCK):
            self.row, self.start = {}, self.path.stat().st_size
        self.row |= scalars
        if new := [key for key in self.row if key not in self.columns]:
            older = [row for row in read_metrics(self.path) if row[CLOCK] != self.row[CLOCK]]
            self._rewrite([*self.columns, *new], older)
        self._replace_last()

    def _open(self) -> None:
        found = read_metrics(self.path) if self.path.exists() else []
        rows = [row for row in found if row[CLOCK] <= self.resumed_at]
        self._rewrite(list(dict.fromkeys([CLOCK, *(key for row in rows for key in row)])), rows[:-1])
        if rows:  # the last one is left open for more keys
            self.row = rows[-1]
            self._replace_last()

    def _replace_last(self) -> None:
        try:
            with self.path.open("r+", newline="") as file:
                file.seek(self.start)
                file.truncate()
                self._writer(file, self.columns).writerow(self.row)
        except OSError:
            os.truncate(self.path, self.start)  # half a row would spoil the next
            raise

    def _rewrite(self, columns: list[str], rows: list[dict[str, float]]) -> None:
        with whole(self.path) as partial, partial.open("w", newline="") as file:
            writer = self._writer(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        self.columns, self.start = columns, self.path.stat().st_size

    def _writer(self, file: TextIO, columns: list[str]) -> csv.DictWriter[str]:
        return csv.DictWriter(file, columns, lineterminator="\n")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv, each with the keys that it has a value for."""
    with Path(path).open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [row | {CLOCK: int(row[CLOCK])} for row in rows]
