"""The page: one HTML file that needs nothing else, and says the essentials without its script."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from html import escape
from pathlib import Path

from litgan.report import curves
from litgan.report.curves import Panel, number
from litgan.report.files import embed
from litgan.report.run import Run
from litgan.report.viewer import explain, samples

HERE = Path(__file__).parent

GROUPS = {  # what a reader who is new to GANs has to know about each group of curves
    "metric": "How far samples are from the data, measured on the averaged generator.",
    "loss": "What each network minimises. Neither has to fall: the two play against each other.",
    "feedback": "The feedback to the same latents at every look: its norm, and its cosine to the look "
    "before. Near 1 the generator is sent the same way again, below 0 back.",
    "telescope": "The norm of the feedback at each block, on its way from the discriminator's output back to "
    "the generator's latents.",
    "update": "How far one step moves the weights, as a share of their norm.",
    "logits": "What the discriminator says to reals and to fakes, and how surely it tells them apart.",
    "penalty": "What is added to a loss to keep its network smooth, shown without its weight.",
    "gradient": "How hard each network is pushed. Feedback is the gradient that the discriminator sends back "
    "to each fake sample: where it vanishes, the generator learns nothing.",
    "augmentation": "How much is changed in what the discriminator sees.",
    "scaler": "The loss scale of float16.",
    "speed": "Images a second, the share of time spent waiting for data, memory.",
}
FIRST = (
    "metric",
    "loss",
    "gradient",
    "feedback",
    "logits",
    "telescope",
    "update",
    "penalty",
)  # groups in order; others follow, speed last


def render(run: Run) -> str:
    """The whole page."""
    shown = embed(run)
    groups = curves.arrange({key: run.points(key) for key in run.keys})
    order = {group: place for place, group in enumerate(FIRST)} | {"speed": 99}
    groups = dict(sorted(groups.items(), key=lambda item: order.get(item[0], 50)))
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    panels = [panel for group in groups.values() for panel in group]
    facts = {
        "end": run.images_seen,
        "plot": [curves.LEFT, curves.TOP, curves.ACROSS, curves.DOWN],
        "panels": [curves.numbers(panel) for panel in panels],
    }
    name = f"{run.folder.parent.name} / {run.folder.name}"
    parts = {
        "TITLE": escape(name),
        "POLICY": "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'",  # no network, and no script but ours
        "STYLE": (HERE / "page.css").read_text(encoding="utf-8"),
        "SCRIPT": script,
        "FACTS": json.dumps(facts, separators=(",", ":"), allow_nan=False),  # numbers alone
        "HEADER": header(run),
        "REMARKS": remarks([*run.remarks, *shown.remarks]),
        "SAMPLES": samples(run, shown),
        "VERDICTS": verdicts(run),
        "CURVES": draw_groups(run, groups),
        "MEASUREMENTS": measurements(run),
        "RECIPE": recipe(run),
    }
    page = (HERE / "page.html").read_text(encoding="utf-8").split("$$")
    return "".join(parts[text] if place % 2 else text for place, text in enumerate(page))


def header(run: Run) -> str:
    """Which run, what plays, and the numbers that one wants to know first."""
    tiles = [("images seen", f"{run.images_seen:,}", "")]
    if run.distance:
        name, (last_at, last) = run.distance.removeprefix("metric/"), run.points(run.distance)[-1]
        if best := run.best():
            tiles.append((f"best {name}", number(best[1]), f"after {best[0]:,} images"))
        tiles.append((f"last {name}", number(last), f"after {last_at:,} images"))
    speeds = [value for _, value in run.points("speed/images_per_second") if math.isfinite(value)]
    if speeds:
        tiles.append(("images a second", number(sorted(speeds)[len(speeds) // 2]), "median"))
    if run.events is not None:
        tiles.append(("verdicts", str(len(run.events)) if run.events else "none", "on the run's health"))
    cells = "".join(
        f"<div><dt>{escape(label)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
        for label, value, note in tiles
    )
    return (
        f'<p class="run">{escape(run.folder.name)}</p><h1>{escape(run.folder.parent.name)}</h1>'
        f'{game(run)}<dl class="tiles">{cells}</dl>'
    )


def game(run: Run) -> str:
    """One sentence: who plays against whom, for what data, by which rules."""
    players = [class_name(run.setting(f"model.{network}")) for network in ("generator", "discriminator")]
    data, loss = class_name(run.setting("data")), class_name(run.setting("model.loss"))
    if not all([*players, data, loss]):
        return ""
    rules = [f"{loss} loss", *penalty_names(run)]
    return (
        f'<p class="game"><b>{escape(players[0])}</b> learns <b>{escape(data)}</b> from '
        f"<b>{escape(players[1])}</b>: {escape(', '.join(rules))}.</p>"
    )


def class_name(node: object) -> str:
    """The last part of a recipe's class path."""
    path = node.get("class_path") if isinstance(node, dict) else node
    return path.rpartition(".")[2] if isinstance(path, str) else ""


def penalty_names(run: Run) -> list[str]:
    found = run.setting("model.penalties")
    return [name for node in (found if isinstance(found, list) else []) if (name := class_name(node))]


def remarks(sentences: list[str]) -> str:
    """What is missing or left out."""
    if not sentences:
        return ""
    return '<ul class="remarks">' + "".join(f"<li>{escape(one)}</li>" for one in sentences) + "</ul>"


def verdicts(run: Run) -> str:
    """The health events, or that there are none, or that nobody watched."""
    if run.events is None:
        broken = (run.folder / "health.jsonl").is_file()
        said = "What was raised cannot be read" if broken else "Health was not watched in this run"
        body = f'<p class="quiet">{said}.</p>'
    elif not run.events:
        body = '<p class="good">None raised.</p>'
    else:
        rows = []
        for event in run.events:
            measured = "" if event.value is None else number(event.value)
            if measured and event.threshold is not None:
                measured += f", threshold {number(event.threshold)}"
            remedy = f'<p class="remedy">{escape(event.remedy)}</p>' if event.remedy else ""
            rows.append(
                f"<li><div><b>{escape(event.verdict)}</b><span>after {event.images_seen:,} images</span>"
                f"<span>{escape(measured)}</span></div><p>{escape(event.meaning)}</p>{remedy}</li>"
            )
        body = f'<ol class="verdicts">{"".join(rows)}</ol>'
    return f'<section id="verdicts"><h2>Verdicts</h2>{body}</section>'


def draw_groups(run: Run, groups: dict[str, list[Panel]]) -> str:
    """All curves, group by group."""
    if not groups:
        return ""
    return (
        '<section id="curves"><h2>Curves<button type="button" class="reset" hidden>Show all</button></h2>'
        '<p class="hint" hidden>Over images seen. Drag to zoom, double-click to see all; a click shows the '
        'samples of that moment.</p><div class="groups">'
        + "".join(draw_group(run, group, panels) for group, panels in groups.items())
        + "</div></section>"
    )


def draw_group(run: Run, group: str, panels: list[Panel]) -> str:
    """The panels of one prefix, each with its legend, and what they tell."""
    events, figures = [event.images_seen for event in run.events or []], []
    for panel in panels:
        legend = [
            f'<span><i class="s{colour}"></i>{escape(key.removeprefix(f"{group}/"))} '
            f"<b>{number(points[-1][1])}</b></span>"
            for colour, (key, points) in zip(curves.colours(panel), panel.series.items(), strict=True)
        ]
        axis = '<span class="axis">log</span>' if panel.log else ""
        best = run.best() if run.distance in panel.series else None
        drawn = curves.draw(
            panel, run.images_seen, events, best, f"{', '.join(panel.series)} over images seen"
        )
        figures.append(
            f'<figure class="panel"><figcaption>{"".join(legend)}{axis}</figcaption>{drawn}</figure>'
        )
    size = ("", " two", " several")[min(len(panels), 3) - 1]
    return (
        f'<div class="group{size}"><h3>{escape(group)}</h3><div class="panels">{"".join(figures)}</div>'
        f"{explain(GROUPS.get(group, ''))}</div>"
    )


def measurements(run: Run) -> str:
    """Every metric at the start, at the best moment and at the end, and how it was measured."""
    keys = [key for key in run.keys if key.startswith("metric/")]
    best = run.best()
    if not keys:
        none = '<p class="quiet">No metric was measured.</p>'
        return f'<section id="metrics"><h2>Measurements</h2>{none}</section>'
    moments = [at for at, _ in run.points(run.distance or keys[0])]
    columns: dict[int, str] = {}  # images_seen -> name
    for name, at in {
        "first": moments[0],
        "best": best[0] if best else moments[0],
        "last": moments[-1],
    }.items():
        if best or name != "best":
            columns[at] = f"{columns[at]} and {name}" if at in columns else name
    head = "".join(f"<th>{name}<small>{at:,} images</small></th>" for at, name in sorted(columns.items()))
    rows = []
    for key in keys:
        values = dict(run.points(key))
        cells = "".join(f"<td>{number(values[at]) if at in values else '–'}</td>" for at in sorted(columns))
        rows.append(f"<tr><th>{escape(key.removeprefix('metric/'))}</th>{cells}</tr>")
    facts = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in protocol(run).items())
    kept = ""
    if best and (run.folder / "checkpoints" / "best.ckpt").is_file():
        kept = "<p>The weights of the best moment are in checkpoints/best.ckpt.</p>"
    return (
        '<section id="metrics"><h2>Measurements</h2><div class="pair"><div class="scroll"><table>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{kept}</div>"
        f'<div><h3>Protocol</h3><dl class="facts">{facts}</dl><p>Numbers under different protocols are not '
        "comparable.</p></div></div></section>"
    )


def protocol(run: Run) -> dict[str, str]:
    """How the metrics were measured, as far as the recipe tells."""
    extractor = run.setting("realism.extractor")
    half_life = run.setting("model.ema_halflife")
    average = (
        f"average, half-life {half_life:,.0f} images" if isinstance(half_life, (int, float)) else "average"
    )
    told = {
        "extractor": class_name(extractor) or extractor,
        "samples": run.setting("realism.count"),
        "compared with": run.setting("realism.split")
        and f"{class_name(run.setting('data'))}, split {run.setting('realism.split')}",
        "weights": "of the last step" if run.setting("realism.raw") else average,
        "every": f"{every:,} images" if isinstance(every := run.setting("realism.every"), int) else every,
        "seed": run.setting("seed_everything"),
    }
    return {
        name: f"{v:,}" if isinstance(v, int) else str(v)
        for name, v in told.items()
        if v is not None and v != ""
    }


def recipe(run: Run) -> str:
    """The configuration, folded."""
    if not run.config_text:
        return ""
    return (
        '<section id="recipe"><h2>Recipe</h2><details><summary>config.yaml, as it was resolved</summary>'
        f"<pre>{escape(run.config_text)}</pre></details></section>"
    )
