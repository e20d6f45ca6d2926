"""Loggers: Weights & Biases over `images_seen`, and a CSV file for everybody without an account."""

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
    """Lightning's logger with one x axis, `images_seen`, for every scalar, picture and metric.

    Online when somebody is logged in (or WANDB_MODE says so), offline otherwise.
    """

    clock = 0

    @property
    def experiment(self) -> Any:
        fresh = self._experiment is None and getattr(rank_zero_only, "rank", 0) == 0
        if fresh:  # other ranks, on other machines, do not know the folder's name
            Path(str(self.save_dir)).mkdir(parents=True, exist_ok=True)
        self._wandb_init.pop("anonymous", None)  # Lightning's; W&B knows it no more and warns
        run = super().experiment
        if fresh:
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
    """One row per `images_seen`, one column per key, in one file that grows with the run.

    Every value is on disk as soon as it is logged; what a full disk refuses is left out. A resumed run
    goes on in the same file: rows beyond the checkpoint's clock, from the part of the run that was lost,
    are dropped. A file that was damaged is kept beside a new one, which begins with the rows that can be
    read; one that was removed or changed by others while the run goes on is made again.

    Args:
        path: of the file.
        resumed_at: the checkpoint's clock, 0 for a new run.
    """

    def __init__(self, path: Path, resumed_at: int = 0) -> None:
        super().__init__()
        self.path, self.resumed_at = Path(path), resumed_at
        self.row: dict[str, float] = {}  # the last one, to which further keys of the same clock are added
        self.start = 0  # of that row in the file
        self.end = 0  # of the file, as it was left
        self.columns: list[str] = []  # none before the file is opened

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
        with ignore_disk_errors(f"A row of {self.path}"):
            self._write(scalars)

    def _write(self, scalars: dict[str, float]) -> None:
        if not self.columns or self._size() != self.end:
            self._open()
        if scalars[CLOCK] != self.row.get(CLOCK):
            self.row, self.start = {}, self.end
        self.row |= scalars
        if new := [key for key in self.row if key not in self.columns]:
            self._rewrite([*self.columns, *new], self._older(read_metrics(self.path)))
        self._replace_last()

    def _size(self) -> int:
        """Of the file; -1 if there is none."""
        return self.path.stat().st_size if self.path.is_file() else -1

    def _open(self) -> None:
        """Takes over the rows that are there; the last one is left open for more keys."""
        latest = self.row.get(CLOCK, self.resumed_at)
        rows = [row for row in self._found() if row[CLOCK] <= latest]
        self.row = self.row or (rows[-1] if rows else {})
        older = self._older(rows)
        self._rewrite(
            list(dict.fromkeys([CLOCK, *(key for row in [*older, self.row] for key in row)])), older
        )
        if self.row:
            self._replace_last()

    def _found(self) -> list[dict[str, float]]:
        """The rows of the file; one that is damaged is set aside."""
        if not os.path.lexists(self.path):
            return []
        rows, damaged = parse_metrics(self.path.read_bytes()) if self.path.is_file() else ([], 1)
        if damaged or not self._size():
            rename_damaged(self.path)
        return rows

    def _older(self, rows: list[dict[str, float]]) -> list[dict[str, float]]:
        return [row for row in rows if row[CLOCK] != self.row.get(CLOCK)]

    def _replace_last(self) -> None:
        line = _encode([[self.row.get(key, "") for key in self.columns]])
        try:
            with self.path.open("r+b") as file:
                file.seek(self.start)
                file.truncate()
                file.write(line)
        except OSError:
            os.truncate(self.path, self.start)  # half a row would spoil the next
            self.end = self.start
            raise
        self.end = self.start + len(line)

    def _rewrite(self, columns: list[str], rows: list[dict[str, float]]) -> None:
        content = _encode([columns, *([row.get(key, "") for key in columns] for row in rows)])
        with atomic_write(self.path) as partial:
            partial.write_bytes(content)
        self.columns, self.start, self.end = columns, len(content), len(content)


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
