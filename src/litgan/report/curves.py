"""Curves as static SVG: which scalars share a panel, on which axis, and how they are drawn."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 400, 190  # of a panel, in SVG units
LEFT, TOP, RIGHT, BOTTOM = 46, 8, 10, 24  # its margins
EDGE = 6  # what may be drawn beside the plot: half a mark
ACROSS, DOWN = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM  # its plot

LOG_FROM = 10.0  # positive values that span a greater factor are drawn on a log axis
APART = 30.0  # values whose sizes differ by a greater factor do not share axes
MOST_SERIES = 6  # in a panel
MOST_POINTS = 1000  # of a series
MARKED = 30  # a series of fewer points shows each

ALONE = ("metric", "speed", "feedback")  # in these groups each scalar has a unit of its own, except:
SHARES = ("precision", "recall", "density", "coverage", "accuracy", "separation", "vanishing")
COLOURS = {"generator": 0, "fake": 0, "discriminator": 1, "real": 2, "feedback": 3}  # the same everywhere

Points = list[tuple[int, float]]  # (images_seen, value)


@dataclass(frozen=True)
class Panel:
    """Scalars on one pair of axes."""

    series: dict[str, Points]  # key -> points
    low: float  # the y axis; of a log axis, decades
    high: float
    log: bool

    def across(self, at: int, end: int) -> float:
        """The x of images_seen in the plot."""
        return at / max(1, end) * ACROSS

    def down(self, value: float) -> float:
        """The y of a value in the plot, from its top."""
        height = math.log10(value) if self.log else value
        return DOWN * (self.high - height) / (self.high - self.low)


def arrange(scalars: dict[str, Points]) -> dict[str, list[Panel]]:
    """Groups scalars by prefix, and within a group puts what is of one kind and size on the same axes."""
    families: dict[str, list[list[str]]] = {}
    for key in scalars:
        for panel in (panels := families.setdefault(_family(key), [])):
            alike = _name(key) in SHARES or _alike(scalars[panel[0]], scalars[key])
            if alike and len(panel) < MOST_SERIES:
                panel.append(key)
                break
        else:
            panels.append([key])
    groups: dict[str, list[Panel]] = {}
    for panels in families.values():
        for keys in panels:
            keys.sort(key=lambda key: COLOURS.get(_name(key), MOST_SERIES))
            group = keys[0].split("/")[0] if "/" in keys[0] else "other"
            groups.setdefault(group, []).append(make_panel({key: thin_out(scalars[key]) for key in keys}))
    return groups


def make_panel(series: dict[str, Points]) -> Panel:
    """Axes around the points: logarithmic where positive values span decades, from zero where it is near."""
    values = [value for points in series.values() for _, value in points if drawable(value)] or [0.0]
    low, high = min(values), max(values)
    log = 0 < LOG_FROM * low < high and _name(next(iter(series))) not in SHARES
    if log:
        low, high = math.log10(low), math.log10(high)
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    starts_at_zero = not log and 0 <= low <= 0.5 * high
    return Panel(series, 0.0 if starts_at_zero else low - margin, high + margin, log)


def drawable(value: float) -> bool:
    """Whether a value has a place on an axis: it is finite, and not absurdly large or small."""
    return value == 0.0 or 1e-100 < abs(value) < 1e100


def thin_out(points: Points, most: int = MOST_POINTS) -> Points:
    """About `most` points: the ends, and of each stretch the least and the greatest: no spike is lost."""
    if len(points) <= most:
        return points
    stretch = math.ceil(len(points) / (most // 2))
    kept = [points[0]]
    for start in range(1, len(points) - 1, stretch):
        part = [
            point for point in points[start : min(start + stretch, len(points) - 1)] if drawable(point[1])
        ]
        if part:
            kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
        else:  # a gap stays one
            kept.append(points[start])
    return [*kept, points[-1]]


def draw(panel: Panel, end: int, events: list[int], best: tuple[int, float] | None, name: str) -> str:
    """One panel as SVG, its x axis from 0 to `end` images; `best` is the point that is marked."""
    grid, curves = [], []
    for value, label in y_ticks(panel):
        y = TOP + panel.down(value)
        grid.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        grid.append(f'<text x="{LEFT - 10}" y="{y + 3.5:.1f}" class="y">{label}</text>')
    times = [
        f'<text x="{LEFT + panel.across(int(at), end):.1f}" y="{HEIGHT - 7}">{short(at)}</text>'
        for at in ticks(0, max(1, end), 4)
    ]
    for at in events:
        curves.append(f'<path class="event" d="M{panel.across(at, end):.1f} 0v{DOWN}"/>')
    for colour, points in zip(colours(panel), panel.series.values(), strict=True):
        line, dots = trace(panel, points, end)
        curves.append(f'<path class="line s{colour}" d="{line}"/>')
        if len(points) <= MARKED:
            curves.append(f'<path class="dots s{colour}" d="{dots}"/>')
    if best:
        place = f"M{panel.across(best[0], end):.1f} {panel.down(best[1]):.1f}h0"
        curves.append(f'<path class="ring" d="{place}"/><path class="core" d="{place}"/>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)}">'
        f'<g class="grid">{"".join(grid)}</g><g class="times">{"".join(times)}</g>'
        f'<svg class="plot" x="{LEFT - EDGE}" y="{TOP - EDGE}" width="{ACROSS + 2 * EDGE}" '
        f'height="{DOWN + 2 * EDGE}" viewBox="{-EDGE} {-EDGE} {ACROSS + 2 * EDGE} {DOWN + 2 * EDGE}">'
        f'<g class="curves">{"".join(curves)}</g></svg></svg>'
    )


def trace(panel: Panel, points: Points, end: int) -> tuple[str, str]:
    """The path of the line, broken where a value is not finite, and that of a dot at each point."""
    line, dots, pen = [], [], "M"
    for at, value in points:
        if not drawable(value):
            pen = "M"
            continue
        place = f"{panel.across(at, end):.1f} {panel.down(value):.1f}"
        line.append(pen + place)
        dots.append(f"M{place}h0")
        pen = "L"
    return "".join(line), "".join(dots)


def colours(panel: Panel) -> list[int]:
    """One of six for each series; what has a colour of its own has it in every panel."""
    own = [COLOURS.get(_name(key)) for key in panel.series]
    free = (number for number in range(MOST_SERIES) if number not in own)
    chosen: list[int] = []
    for colour in own:
        taken = colour is None or colour in chosen
        chosen.append(next(free) if taken or colour is None else colour)
    return chosen


def numbers(panel: Panel) -> dict[str, Any]:
    """What the page's script needs in order to read values off a panel."""
    series = [
        [
            [at for at, _ in points],
            [float(f"{value:.5g}") if drawable(value) else None for _, value in points],
        ]
        for points in panel.series.values()
    ]
    return {"low": panel.low, "high": panel.high, "log": panel.log, "series": series}


def ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between two others."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= 0.999 * rough)
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def y_ticks(panel: Panel) -> list[tuple[float, str]]:
    """Values on the y axis, with their labels."""
    if not panel.log:
        return [(value, short(value)) for value in ticks(panel.low, panel.high, 4)]
    first, last = math.floor(panel.low), math.ceil(panel.high)
    stride = max(1, round((panel.high - panel.low) / 4))
    mantissas = (1, 2, 5) if panel.high - panel.low < 2.2 else (1,)
    found = [m * 10.0**power for power in range(first, last + 1, stride) for m in mantissas]
    return [(value, short(value)) for value in found if panel.low <= math.log10(value) <= panel.high]


def short(value: float) -> str:
    """A number in the space of an axis: 320k, 1.5M, 0.25, 1e-5."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 0.9999 * 10**power:
            return f"{value / 10**power:.4g}{letter}"
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.3g}".split("e") if abs(value) < 1e-4 else (f"{value:.3g}", "")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return f"{value:.4g}"


def number(value: float) -> str:
    """Four digits, and no more zeros than needed."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _family(key: str) -> str:
    """What scalars on the same axes have in common: `margin_10` goes with `margin_50`, shares with shares."""
    group, name = key.rpartition("/")[0], _name(key)
    if name in SHARES:
        return f"{group} shares"
    if group in ALONE:
        return key
    stem, underscore, _ = name.partition("_")
    return f"{group}/{stem}" if underscore and "/" not in group else group


def _alike(one: Points, other: Points) -> bool:
    """Whether typical values of the two are of the same order of magnitude."""
    sizes = []
    for points in (one, other):
        finite = [abs(value) for _, value in points if drawable(value)]
        sizes.append(statistics.median(finite) if finite else 0.0)
    return sizes[0] == sizes[1] or 0 < max(sizes) <= APART * min(sizes)
