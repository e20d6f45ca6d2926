"""Loggers over `images_seen`: Weights & Biases, and a CSV file that needs no account.

The one for W&B is Lightning's. The one for CSV is our own: Lightning's deletes metrics.csv when a run is
resumed, keeps rows in memory until it saves them, and ends the run when the disk is full.
"""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from litgan.files import atomic_write, ignore_disk_errors, rename_damaged
from litgan.render import SampleBatch

CLOCK = "images_seen"
BROKEN = "\ufffd"  # Unicode's replacement character


class WandbLogger(LightningWandbLogger):
    """Lightning's logger with `images_seen` instead of the number of batches as the x axis of every key.

    What is logged without it, e.g. by a callback's `self.log`, gets its last value from W&B (`step_sync`).
    """

    @property
    def experiment(self) -> Any:
        new = self._experiment is None
        run = super().experiment
        if new and self._experiment is not None:  # on rank zero
            run.define_metric(CLOCK, hidden=True)
            run.define_metric("*", step_metric=CLOCK, step_sync=True, overwrite=True)  # Lightning's own
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(metrics)  # without `step`, which would become a second x axis


def wandb_logger(folder: Path, *, project: str, run_id: str, name: str) -> WandbLogger:
    """The W&B run `run_id`, continued if it exists, with its files under `folder`/wandb.

    Online where a user is logged in or WANDB_MODE demands it, offline otherwise.
    """
    import wandb

    logger = WandbLogger(
        project=project, id=run_id, name=name, group=name.split("/")[0], save_dir=str(folder),
        mode=os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline"),
        settings=wandb.Settings(silent=True),
    )  # fmt: skip
    logger._wandb_init.pop("anonymous")  # an argument of Lightning's that W&B has dropped and warns about
    return logger


def _logged_in() -> bool:
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except TypeError:  # versions before `prompt`
        return bool(wandb.api.api_key)


def log_picture(trainer: Trainer, name: str, picture: Tensor, media: SampleBatch | None = None) -> None:
    """Sends a picture, uint8 [H, W, 3], to every W&B logger, with what plays the media that it shows."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            playable = {} if media is None else media.wandb_media()
            shown = {f"{name}/{kind}": one for kind, one in playable.items()}
            shown |= {name: wandb.Image(picture.cpu().numpy())}
            logger.log_metrics({**shown, "images_seen": trainer.lightning_module.images_seen})


class CSVLogger(Logger):
    """One row per `images_seen`, one column per key, in one file for the whole run.

    Every value is on disk as soon as it is logged; a value that a full disk refuses is left out. A resumed
    run continues the file without the rows beyond the checkpoint's `images_seen`, of the part of the run
    that was lost. A damaged file is renamed, and its readable rows begin the new one. A file that others
    remove or change during the run is written anew.

    Args:
        path: of the file.
        resumed_at: `images_seen` of the checkpoint, 0 for a new run.
    """

    name, version = "csv", ""

    def __init__(self, path: Path, resumed_at: int = 0) -> None:
        super().__init__()
        self.path, self.resumed_at = Path(path), resumed_at
        self.row: dict[str, float] = {}  # the last one; further keys of the same images_seen are added
        self.start = 0  # of that row in the file, in bytes
        self.end = 0  # of the file, after our last write
        self.columns: list[str] = []  # empty until the first write

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        scalars = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
        if scalars.keys() - {CLOCK}:
            with ignore_disk_errors(f"A row of {self.path}"):
                # A callback's `self.log` does not pass images_seen: it belongs to the last row.
                self._write({CLOCK: self.row.get(CLOCK, self.resumed_at), **scalars})

    def _write(self, scalars: dict[str, float]) -> None:
        if not self.columns or not self.path.is_file() or self.path.stat().st_size != self.end:
            latest = self.row.get(CLOCK, self.resumed_at)
            rows = [row for row in self._read() if row[CLOCK] <= latest]
            self.row = self.row or (rows[-1] if rows else {})
            self._rewrite(rows)
        if scalars[CLOCK] != self.row.get(CLOCK):
            self.row, self.start = {}, self.end
        self.row |= scalars
        if self.row.keys() <= set(self.columns):
            self._replace_last()
        else:
            self._rewrite(read_metrics(self.path))

    def _read(self) -> list[dict[str, float]]:
        """The rows of the file; renames a damaged one."""
        if not os.path.lexists(self.path):
            return []
        content = self.path.read_bytes() if self.path.is_file() else b""
        rows, damaged = parse_metrics(content)
        if damaged or not content:
            rename_damaged(self.path)
        return rows

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        """Writes the file anew: these rows and the last row, with a column for every key."""
        rows = [row for row in rows if row[CLOCK] != self.row.get(CLOCK)]
        columns = list(
            dict.fromkeys([CLOCK, *self.columns, *(key for row in [*rows, self.row] for key in row)])
        )
        content = _encode([columns, *([row.get(key, "") for key in columns] for row in rows)])
        with atomic_write(self.path) as partial:
            partial.write_bytes(content)
        self.columns, self.start, self.end = columns, len(content), len(content)
        if self.row:
            self._replace_last()

    def _replace_last(self) -> None:
        line = _encode([[self.row.get(key, "") for key in self.columns]])
        try:
            with self.path.open("r+b") as file:
                file.seek(self.start)
                file.truncate()
                file.write(line)
        except OSError:
            os.truncate(self.path, self.start)  # half a row would damage the next
            self.end = self.start
            raise
        self.end = self.start + len(line)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv that can be read, each with the keys that it has a value for."""
    return parse_metrics(Path(path).read_bytes())[0]


def parse_metrics(content: bytes) -> tuple[list[dict[str, float]], int]:
    """The rows of a metrics.csv, and how many of its lines are damaged and left out.

    A header that is damaged in part counts among them; the columns whose names are sound are read.
    """
    *lines, rest = content.split(b"\n")
    damaged = int(rest != b"")  # a line without an end was cut, and its last number with it
    header = _cells(lines[0]) if lines else []
    columns = [name if header.count(name) == 1 and BROKEN not in name else "" for name in header]
    damaged += int(bool(lines) and (CLOCK not in columns or "" in columns))
    rows = []
    for line in lines[1:]:
        try:
            cells = zip(columns, _cells(line), strict=True)
            row = {name: float(cell) for name, cell in cells if name and cell}
            rows.append(row | {CLOCK: int(row[CLOCK])})
        except (ValueError, KeyError, OverflowError):
            damaged += 1
    return rows, damaged


def _cells(line: bytes) -> list[str]:
    """Of one line; none if it is no CSV. `BROKEN` stands for what is no text."""
    try:
        return next(csv.reader([line.decode(errors="replace").replace("\0", BROKEN)]), [])
    except csv.Error:
        return []


def _encode(lines: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def distance_keys(rows: list[dict[str, float]]) -> list[str]:
    """The keys of the distances to the data."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key == "metric/fid" or key.startswith("metric/fd_")]
