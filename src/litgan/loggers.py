"""Loggers over `images_seen`: Weights & Biases, and a CSV file that needs no account.

The one for W&B is Lightning's. The one for CSV is our own: Lightning's deletes metrics.csv when a run is
resumed, keeps rows in memory until it saves them, and ends the run when the disk is full.
"""

from __future__ import annotations

import csv
import io
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from litgan.files import atomic_write, disk_error, ignore_disk_errors, rename_damaged, warn
from litgan.render import SampleBatch

PACKAGE = __name__.partition(".")[0]
CLOCK = "images_seen"
BROKEN = "\ufffd"  # Unicode's replacement character


@dataclass
class WandbOptions:
    """A run in Weights & Biases. What is left out comes from its environment variables, such as WANDB_ENTITY.

    Args:
        entity: user or team that owns the project.
        project: WANDB_PROJECT or "litgan" if left out.
        name: WANDB_NAME or "<recipe>/<run id>" if left out.
        group: WANDB_RUN_GROUP or the recipe's name if left out.
        job_type: e.g. train.
        tags: to filter runs by.
        notes: a few words on the run.
        log_model: save the last and the best checkpoint as an artifact when the run ends.
    """

    entity: str | None = None
    project: str | None = None
    name: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] | None = None
    notes: str | None = None
    log_model: bool = False


class WandbRun(WandbLogger):
    """Lightning's logger with `images_seen` instead of the number of batches as the x axis of every key.

    What is logged without it, e.g. by a callback's `self.log`, gets its last value from W&B (`step_sync`).
    The summary of a distance is its lowest value.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.distances: set[str] = set()  # keys whose summary is defined

    @property
    def experiment(self) -> Any:
        import wandb

        new = self._experiment is None
        try:
            run = super().experiment
        except wandb.errors.CommError as error:  # logged in, but the server does not answer
            warn(f"Weights & Biases cannot be reached ({error}): the run is logged offline.")
            self._wandb_init["mode"] = "offline"
            run = super().experiment
        except OSError as error:
            warn(f"W&B's files cannot be written {disk_error(error)}. Training goes on without W&B.")
            self._wandb_init["mode"] = "disabled"
            run = super().experiment
        if new and self._experiment is not None:  # on rank zero
            run.define_metric(CLOCK, hidden=True)
            run.define_metric("*", step_metric=CLOCK, step_sync=True, overwrite=True)  # Lightning's own
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        distances = {*distance_keys([metrics]), "metric/kid"} & metrics.keys()
        for key in distances - self.distances:
            self.distances.add(key)
            self.experiment.define_metric(key, step_metric=CLOCK, step_sync=True, summary="min")  # the best
        super().log_metrics(metrics)  # without `step`, which would become a second x axis

    @property
    def address(self) -> str:
        """Where the run can be seen: its page, or what uploads it."""
        run = self.experiment
        if run.offline:
            files = f"{Path(run.dir).parents[1]}/offline-run-*"  # one for each start and resume
            return f"offline; to upload it: wandb sync {files}"
        return run.url or "disabled"

    @rank_zero_only
    def log_checkpoints(self, folder: Path) -> None:
        """Saves last.ckpt and best.ckpt as one artifact of the run."""
        import wandb

        artifact = wandb.Artifact(f"{folder.parent.name}-{folder.name}", type="model")
        artifact.add_dir(str(folder / "checkpoints"))
        self.experiment.log_artifact(artifact)


def wandb_run(folder: Path, options: WandbOptions) -> WandbRun:
    """The W&B run of a run folder, continued if it exists, with its files in `folder`/wandb.

    Online where a user is logged in or WANDB_MODE demands it, offline otherwise.
    """
    import wandb

    recipe, run_id, given = folder.parent.name, folder.name, os.environ.get
    logger = WandbRun(
        project=options.project or given("WANDB_PROJECT") or PACKAGE, id=run_id, save_dir=str(folder),
        name=options.name or given("WANDB_NAME") or f"{recipe}/{run_id}",
        group=options.group or given("WANDB_RUN_GROUP") or recipe,
        mode=given("WANDB_MODE") or ("online" if _logged_in() else "offline"),
        settings=wandb.Settings(silent=True),
        **{
            key: value for key in ("entity", "job_type", "tags", "notes")
            if (value := getattr(options, key)) is not None
        },
    )  # fmt: skip
    logger._wandb_init.pop("anonymous")  # an argument of Lightning's that W&B has dropped and warns about
    return logger


def _logged_in() -> bool:
    """Whether W&B has a key for its server, and the server accepts it."""
    import wandb

    try:
        return bool(wandb.login(prompt=False))
    except wandb.errors.Error as error:
        warn(f"Weights & Biases cannot be reached ({error}): the run is logged offline.")
        return False


def parameter_counts(gan: Any) -> dict[str, int]:
    """Number of parameters of both networks."""
    networks = {"generator": gan.generator, "discriminator": gan.discriminator}
    return {name: sum(one.numel() for one in part.parameters()) for name, part in networks.items()}


def log_picture(trainer: Trainer, name: str, picture: Tensor, media: SampleBatch | None = None) -> None:
    """Sends a picture, uint8 [H, W, 3], to the loggers of W&B and TensorBoard; to W&B with players, too."""
    images_seen: Any = trainer.lightning_module.images_seen
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture.cpu().numpy(), images_seen, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            import wandb

            media_of_wandb = {} if media is None else media.wandb_media()
            shown = {f"{name}/{kind}": one for kind, one in media_of_wandb.items()}
            shown[name] = wandb.Image(picture.cpu().numpy(), caption=f"{images_seen:,} images")
            logger.log_metrics({**shown, CLOCK: images_seen})


class MetricsFile(Logger):
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


def distance_keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys of the Fréchet distances to the data."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key == "metric/fid" or key.startswith("metric/fd_")]
