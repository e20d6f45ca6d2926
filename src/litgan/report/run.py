"""What a run folder holds, read with patience: what is missing or broken becomes a remark, not an error."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from litgan.loggers import CLOCK

PARTS = ("config.yaml", "metrics.csv", "samples")  # one of them makes a folder a run's
SAMPLE = re.compile(r"(?P<at>\d+|reals)\.(?P<medium>png|wav|mid|txt)|(?P<dated>\d+)_(?P<kind>\w+)\.png")
STILL = re.compile(r"(?P<kind>[a-z]\w*)\.png")


@dataclass(frozen=True)
class Event:
    """A health verdict, as `health.jsonl` has it."""

    images_seen: int
    verdict: str
    meaning: str
    remedy: str
    value: float | None
    threshold: float | None


@dataclass
class Run:
    """A run folder. Files go by kind: a picture's is "samples", "feedback" or another name, that of what lies
    beside the samples "wav", "mid" or "txt"."""

    folder: Path
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)  # by images_seen
    samples: dict[str, dict[int, Path]] = field(default_factory=dict)  # kind -> images_seen -> file
    reals: dict[str, Path] = field(default_factory=dict)
    stills: dict[str, Path] = field(default_factory=dict)  # pictures of the whole run, as the telescope's
    events: list[Event] | None = None  # None: health was not watched, or what it said cannot be read
    remarks: list[str] = field(default_factory=list)  # one sentence each

    @property
    def images_seen(self) -> int:
        """The latest moment that anything here tells of."""
        shown = [at for files in self.samples.values() for at in files]
        return max([0, *(int(row[CLOCK]) for row in self.rows), *shown])

    @property
    def keys(self) -> list[str]:
        """Of all scalars, in the order of the file."""
        return [key for key in dict.fromkeys(key for row in self.rows for key in row) if key != CLOCK]

    @property
    def distance(self) -> str | None:
        """The key of the distance to the data that the run followed, if it was measured."""
        return next((key for key in self.keys if key == "metric/fid" or key.startswith("metric/fd_")), None)

    def points(self, key: str) -> list[tuple[int, float]]:
        """(images_seen, value) wherever the scalar was logged; values may be NaN or infinite."""
        return [(int(row[CLOCK]), row[key]) for row in self.rows if key in row]

    def best(self) -> tuple[int, float] | None:
        """Where the distance was least after the first step, and its value there, as best.ckpt has it."""
        measured = self.points(self.distance) if self.distance else []
        learnt = [(at, value) for at, value in measured if at and math.isfinite(value)]
        return min(learnt, key=lambda point: point[1], default=None)

    def setting(self, path: str, default: Any = None) -> Any:
        """A value of the recipe by its dotted path without `init_args`; `default` where there is none."""
        node: Any = self.config
        for name in path.split("."):
            if isinstance(node, dict) and name not in node:
                node = node.get("init_args")  # of a class
            node = node.get(name) if isinstance(node, dict) else None
        return default if node is None else node


def read_run(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it is not a run's.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no run folder {folder}: give one, e.g. runs/<recipe>/<run id>.")
    if not any((folder / part).exists() for part in PARTS):
        inner = sorted(
            {path.parent for pattern in ("*/", "*/*/") for path in folder.glob(f"{pattern}config.yaml")}
        )
        hint = f"give a run in it, e.g. {inner[-1]}" if inner else "give one, e.g. runs/<recipe>/<run id>"
        raise ValueError(
            f"{folder} is no run folder, it has neither config.yaml nor metrics.csv nor samples: {hint}."
        )
    run = Run(folder.resolve())
    for read in (read_config, read_metrics, read_samples, read_health):
        read(run)
    return run


def read_config(run: Run) -> None:
    """The recipe, as text and parsed."""
    path = run.folder / "config.yaml"
    if not path.is_file():
        run.remarks.append("config.yaml is missing, so neither recipe nor protocol can be told.")
        return
    run.config_text = path.read_text(encoding="utf-8", errors="replace")
    try:
        config = yaml.safe_load(run.config_text)
    except yaml.YAMLError:
        config = None
    if isinstance(config, dict):
        run.config = config
    else:
        run.remarks.append("config.yaml is no recipe, and is shown as it stands.")


def read_metrics(run: Run) -> None:
    """The rows of metrics.csv; one cut short by a crash, or spoilt otherwise, is left out."""
    path, broken = run.folder / "metrics.csv", 0
    if not path.is_file():
        run.remarks.append("metrics.csv is missing: nothing was measured, or nothing yet.")
        return
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(line.replace("\0", "") for line in file)
        columns = next(reader, [])
        for cells in reader:
            try:
                pairs = zip(columns, cells, strict=True)
                row = {key: float(value) for key, value in pairs if value}
                run.rows.append(row | {CLOCK: int(row[CLOCK])})
            except (ValueError, KeyError, OverflowError):
                broken += 1
    run.rows.sort(key=lambda row: row[CLOCK])
    if broken:
        run.remarks.append(
            f"{_count(broken, 'row')} of metrics.csv cannot be read and {_are(broken)} left out."
        )
    elif not run.rows:
        run.remarks.append("metrics.csv has no row yet.")


def read_samples(run: Run) -> None:
    """The files of the folder `samples`, the pictures among them checked."""
    folder, broken = run.folder / "samples", []
    if not folder.is_dir():
        run.remarks.append("The folder samples is missing, so there is nothing to see.")
        return
    for path in sorted(folder.iterdir()):
        match, still = SAMPLE.fullmatch(path.name), STILL.fullmatch(path.name)
        if not match and not still:
            continue
        if path.suffix == ".png" and not is_picture(path):
            broken.append(path.name)
        elif match and match["at"] == "reals":
            run.reals["samples" if match["medium"] == "png" else match["medium"]] = path
        elif match:
            kind = match["kind"] or ("samples" if match["medium"] == "png" else match["medium"])
            run.samples.setdefault(kind, {})[int(match["at"] or match["dated"])] = path
        elif still:
            run.stills[still["kind"]] = path
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        run.remarks.append(
            f"samples/{broken[0]}{more} cannot be read as PNG and {_are(len(broken))} left out."
        )
    elif not run.samples:
        run.remarks.append("The folder samples has no grid yet.")


def read_health(run: Run) -> None:
    """The verdicts of health.jsonl, if the run's health was watched."""
    path, broken = run.folder / "health.jsonl", 0
    if not path.is_file():
        return
    run.events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            value, threshold = (
                None if found.get(key) is None else float(found[key]) for key in ("value", "threshold")
            )
            meaning, remedy = (str(found.get(key) or "") for key in ("meaning", "remedy"))
            run.events.append(
                Event(int(found[CLOCK]), str(found["verdict"]), meaning, remedy, value, threshold)
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            broken += 1
    run.events.sort(key=lambda event: event.images_seen)
    if broken:
        run.events = run.events or None
        run.remarks.append(
            f"{_count(broken, 'line')} of health.jsonl cannot be read and {_are(broken)} left out."
        )


def is_picture(path: Path) -> bool:
    """Whether a file is a whole PNG."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            picture.verify()
    except Exception:  # Pillow's errors for broken files are of many kinds
        return False
    return True


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number > 1 else "")


def _are(number: int) -> str:
    return "are" if number > 1 else "is"
