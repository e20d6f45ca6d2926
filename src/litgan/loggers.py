"""Loggers: Weights & Biases over `images_seen`, and a CSV file for everybody without an account."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities import rank_zero_only

CLOCK = "images_seen"


class WandbLogger(LightningWandbLogger):
    """Lightning's logger with one x axis, `images_seen`, for every scalar, picture and metric.

    Online when somebody is logged in (or WANDB_MODE says so), offline otherwise.
    """

    clock = 0

    @property
    def experiment(self) -> Any:
        fresh = self._experiment is None
        run = super().experiment
        if fresh and rank_zero_only.rank == 0:
            run.define_metric(CLOCK, hidden=True)
            run.define_metric("*", step_metric=CLOCK, step_sync=True)
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:  # type: ignore[override]
        # Lightning's own calls count batches; they get the clock of our last call.
        self.clock = int(metrics.get(CLOCK, self.clock))
        super().log_metrics({**metrics, CLOCK: self.clock}, step=None)


def wandb_logger(folder: Path, *, project: str, run_id: str, name: str) -> WandbLogger:
    """The run `run_id` of W&B, continued where it exists, its files under `folder`/wandb."""
    folder.mkdir(parents=True, exist_ok=True)
    import wandb

    return WandbLogger(
        project=project, id=run_id, name=name, group=name.split("/")[0], save_dir=str(folder),
        mode="online" if _logged_in() else "offline", settings=wandb.Settings(silent=True),
    )  # fmt: skip


def _logged_in() -> bool:
    import wandb

    if mode := os.environ.get("WANDB_MODE"):
        return mode == "online"
    try:
        return bool(wandb.login(prompt=False))  # type: ignore[call-arg]
    except TypeError:  # versions before `prompt`
        return bool(wandb.api.api_key)


class CSVLogger(Logger):
    """One row per `images_seen`, one column per key, in one file that grows with the run.

    A resumed run goes on in the same file: rows beyond the checkpoint's clock, from the part of the
    run that was lost, are dropped.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = Path(path)
        self.row: dict[str, float] = {}
        self.columns: list[str] | None = None

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
        if self.columns is None:
            self._open(int(scalars[CLOCK]))
        if self.row and self.row[CLOCK] != scalars[CLOCK]:
            self._write()
        self.row |= scalars

    @rank_zero_only
    def save(self) -> None:
        """Lightning calls this every `log_every_n_steps`; rows are written when the clock moves on."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self.row:
            self._write()

    def _open(self, clock: int) -> None:
        rows = [row for row in read_metrics(self.path) if row[CLOCK] < clock] if self.path.exists() else []
        self.columns = [CLOCK]
        self._rewrite(rows)

    def _write(self) -> None:
        assert self.columns is not None
        row, self.row = self.row, {}
        if row.keys() <= set(self.columns):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(row)
        else:
            self._rewrite([*read_metrics(self.path), row])

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        assert self.columns is not None
        self.columns += [
            key for key in dict.fromkeys(key for row in rows for key in row) if key not in self.columns
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial, self.path)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv, each with the keys that it has a value for."""
    with Path(path).open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
