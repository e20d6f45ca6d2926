"""The report of a run: one self-contained HTML page, made from the run's folder alone."""

from __future__ import annotations

import base64
import errno
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from litgan.files import atomic_write, warn, writing_output
from litgan.fine_tuning import shorten
from litgan.loggers import CLOCK, distance_keys, parse_metrics
from litgan.rebuild import check_plain
from litgan.render import draw_curves

MAX_PICTURES = 40  # of a series
MAX_BYTES = 3_000_000  # of a series of pictures, or of any other file
MAX_PNG, MAX_SIDE = 100_000, 800  # bytes; pixels of the JPEGs that larger pictures become
MAX_TEXT = 1000  # characters of a field of an event or of the protocol
MAX_PANELS = 60  # of curves
SHARED = (  # keys that match the same pattern are drawn on the same axes, any other key on its own
    r"metric/(precision|recall|density|coverage)", r"loss/.*", r"gradient/(generator|discriminator)",
    r"logits/(real|fake)", r"logits/sign_.*", r"logits/margin_.*", r"(update|gradient_flow|diagnosis)/.*",
)  # fmt: skip
SOUNDS = {".wav": "audio/wav", ".mid": "audio/midi"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ max-width: 72rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }}
th, td {{ padding: 0 1rem 0.3rem 0; text-align: left; vertical-align: top; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.5rem; }}
figure {{ margin: 0; }} img, input {{ width: 100%; }}
pre {{ max-height: 40rem; overflow: auto; padding: 1rem; background: #f4f4f4; }}
</style></head>
<body><h1>{title}</h1>
{body}
<script>
for (const range of document.querySelectorAll("input"))
  range.oninput = () => range.parentElement.querySelectorAll("img").forEach((image, index) => {{
    image.hidden = index !== Number(range.value);
    if (!image.hidden) range.parentElement.querySelector("output").textContent = image.alt;
  }});
</script></body></html>
"""


def write_report(run_dir: str | Path, out: str | Path | None = None) -> Path:
    """Reads a run folder and writes its page, completely or not at all; returns where.

    Without `out` it is `report.html` in the folder. One sentence on stderr names the files that cannot be
    read; the page shows the others. Raises FileNotFoundError if it is no run folder.
    """
    run = Run(Path(run_dir).resolve())
    if not any((run.folder / part).exists() for part in ("config.yaml", "metrics.csv", "samples")):
        raise FileNotFoundError(
            f"{run_dir} is no run folder, it has neither config.yaml nor metrics.csv nor samples: "
            "give one, e.g. runs/<recipe>/<run id>."
        )
    page, path = render(run), Path(out or run.folder / "report.html")
    with writing_output(path), atomic_write(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="replace")
    if run.lost:
        lost = shorten([f"{name} ({cause})" for name, cause in run.lost.items()])
        warn(f"The report lacks what cannot be read in {run.folder}: {lost}.")
    return path


class Run:
    """The files of a run's folder; `lost` maps the names of missing and damaged ones to the cause."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lost: dict[str, str] = {}

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """Errors in the block, which reads the file `name`, go to `lost`."""
        try:
            yield
        except Exception as error:  # whatever a damaged file raises
            self.lost[name] = getattr(error, "strerror", None) or "damaged"

    def path(self, name: str) -> Path:
        """Where a file or folder of the run lies.

        Raises OSError if it is a link or a pipe: reading it may not end, or show what is not of the run.
        """
        path = self.folder / name
        is_link = os.path.realpath(path) != str(path)
        if os.path.lexists(path) and (is_link or not (path.is_file() or path.is_dir())):
            raise OSError(errno.EINVAL, "no file of the run's folder")
        return path

    def read(self, name: str) -> bytes:
        """The content of a file, empty where it cannot be read."""
        content = b""
        with self.reading(name):
            path = self.path(name)
            if path.stat().st_size > MAX_BYTES:
                raise OSError(errno.EFBIG, "too large for the page")
            content = path.read_bytes()
        return content

    def picture(self, name: str) -> str:
        """A PNG as a data URI, a large one as a JPEG; empty where it cannot be read."""
        uri = ""
        with self.reading(name), Image.open(path := self.path(name), formats=["PNG"]) as picture:
            smaller, content = picture.convert("RGB"), BytesIO()  # reads it whole
            if path.stat().st_size <= MAX_PNG:
                uri = data_uri("image/png", path.read_bytes())
            else:
                smaller.thumbnail((MAX_SIDE, MAX_SIDE))
                smaller.save(content, format="JPEG", quality=85)
                uri = data_uri("image/jpeg", content.getvalue())
        return uri

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, in the order of `images_seen`."""
        rows: list[dict[str, float]] = []
        with self.reading("metrics.csv"):
            rows, damaged = parse_metrics(self.path("metrics.csv").read_bytes())
            rows.sort(key=lambda row: row[CLOCK])
            if damaged:
                self.lost["metrics.csv"] = f"{damaged} damaged"
        return rows

    def events(self) -> list[dict[str, str]]:
        """The events of health.jsonl; none where there is no such file."""
        name, events = "health.jsonl", []
        for line in self.read(name).splitlines() if os.path.lexists(self.folder / name) else []:
            with self.reading(name):
                events.append({key: str(value)[:MAX_TEXT] for key, value in {**json.loads(line)}.items()})
        return events

    def samples(self) -> dict[str, dict[int, str]]:
        """The files of the folder `samples`: the name's end after `images_seen` -> `images_seen` -> name."""
        found: dict[str, dict[int, str]] = {}
        with self.reading("samples"):
            for path in sorted(self.path("samples").iterdir()):
                if match := re.fullmatch(r"([0-9]+)?_?(\w*\.\w+)", path.name):
                    found.setdefault(match[2], {})[int(match[1] or 0)] = f"samples/{path.name}"
        return {kind: dict(sorted(files.items())) for kind, files in sorted(found.items())}


def render(run: Run) -> str:
    """The page."""
    rows, files, config = run.metrics(), run.samples(), run.read("config.yaml").decode(errors="replace")
    times = [row[CLOCK] for row in rows] + [at for found in files.values() for at in found]
    facts = [("images seen", f"{max(times, default=0):,.0f}"), *distances(rows)]
    with run.reading("the protocol in config.yaml"):
        facts.append(("protocol", protocol(yaml.safe_load(config)["realism"]) if config else ""))
    columns = ("images_seen", "verdict", "value", "threshold", "meaning", "remedy")
    events = [[event.get(column, "") for column in columns] for event in run.events()]
    sections = [
        table(facts),
        "<h2>Samples</h2>", samples(run, files),
        "<h2>Diagnosis</h2>", table([columns, *events]) if events else "<p>None in health.jsonl.</p>",
        "<h2>Curves</h2>", curves(rows),
        f"<h2>Recipe</h2><details><summary>config.yaml</summary><pre>{escape(config)}</pre></details>",
    ]  # fmt: skip
    title = escape(f"{run.folder.parent.name} / {run.folder.name}")
    return PAGE.format(title=title, body="\n".join(sections))


def distances(rows: list[dict[str, float]]) -> Iterator[tuple[str, str]]:
    """The best and the last of each distance to the data; an untrained generator's is not the best."""
    for key in distance_keys(rows):
        measured = [(row[key], row[CLOCK]) for row in rows if key in row]
        trained = [(value, at) for value, at in measured if at and math.isfinite(value)]
        for name, (value, at) in {"best": min(trained, default=measured[-1]), "last": measured[-1]}.items():
            yield f"{name} {key}", f"{value:.4g} after {at:,.0f} images"


def protocol(settings: dict[str, Any]) -> str:
    """The settings of the metrics in one line; ValueError if aliases make them too large."""
    check_plain(settings)
    classes = {name: value["class_path"] for name, value in settings.items() if isinstance(value, dict)}
    return ", ".join(f"{name} {value}"[:MAX_TEXT] for name, value in {**settings, **classes}.items())


def samples(run: Run, files: dict[str, dict[int, str]]) -> str:
    """The pictures, each kind with a slider over time, and the newest sound, MIDI file and text."""
    figures, playable = [], []
    for kind, found in files.items():
        *_, newest = found.values()
        suffix, name = Path(newest).suffix, f"<h3>{escape(newest)}</h3>"
        if suffix == ".png":
            figures.append(slider(escape(kind[: -len(suffix)]) or "samples", thinned(run, found)))
        elif suffix == ".txt":
            playable.append(f"{name}<pre>{escape(run.read(newest).decode(errors='replace'))}</pre>")
        elif suffix in SOUNDS and (content := run.read(newest)):
            uri = data_uri(SOUNDS[suffix], content)
            link = f'<a download="{escape(Path(newest).name)}" href="{uri}">save</a>'
            playable.append(name + (f'<audio controls src="{uri}"></audio>' if suffix == ".wav" else link))
    return "\n".join(['<div class="pictures">', *figures, "</div>", *playable])


def thinned(run: Run, files: dict[int, str]) -> dict[int, str]:
    """At most `MAX_PICTURES` pictures and `MAX_BYTES` as data URIs, evenly chosen, the last among them."""
    times = list(files)[:: -max(1, math.ceil(len(files) / MAX_PICTURES))]
    shown, step = [(at, uri) for at in times if (uri := run.picture(files[at]))], 1
    while sum(len(uri) for _, uri in shown[::step]) > MAX_BYTES and step < len(shown):
        step += 1
    return dict(reversed(shown[::step]))


def slider(title: str, shown: dict[int, str]) -> str:
    """Pictures by `images_seen`, of which one is visible, at first the last one."""
    images = [f'<img src="{uri}" alt="after {at:,} images" hidden>' for at, uri in shown.items()]
    if len(images) < 2:  # one picture, of the whole run
        return "".join(f'<figure><b>{title}</b><img src="{uri}" alt=""></figure>' for uri in shown.values())
    images[-1], last = images[-1].replace(" hidden>", ">"), len(images) - 1
    control = f'<input type="range" max="{last}" value="{last}" aria-label="{title}" autocomplete="off">'
    caption = f"<b>{title}</b> <output>after {max(shown):,} images</output>"
    return f"<figure>{caption}{control}{''.join(images)}</figure>"


def table(rows: Sequence[Sequence[object]]) -> str:
    lines = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def curves(rows: list[dict[str, float]]) -> str:
    """All scalars, a picture for each prefix of their keys."""
    groups: dict[str, dict[str, list[str]]] = {}
    known: set[str] = set()
    for key in dict.fromkeys(key for row in rows for key in row if key != CLOCK):
        panel = next((pattern for pattern in SHARED if re.fullmatch(pattern, key)), key)
        if panel in known or len(known) < MAX_PANELS:
            known.add(panel)
            groups.setdefault(key.partition("/")[0], {}).setdefault(panel, []).append(key)
    parts = []
    for group, panels in groups.items():
        uri = data_uri("image/png", draw_curves(rows, list(panels.values())))
        keys = ", ".join(key for panel in panels.values() for key in panel)
        parts.append(f'<h3>{escape(group)}</h3><img src="{uri}" alt="{escape(keys)}">')
    return "\n".join(parts)
