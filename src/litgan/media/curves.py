"""Curves of a run's scalars, drawn with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO


def distance_keys(rows: list[dict[str, float]]) -> list[str]:
    """The keys of the distances to the data."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [key for key in keys if key == "metric/fid" or key.startswith("metric/fd_")]


def draw_curves(rows: list[dict[str, float]], panels: Sequence[Sequence[str]]) -> bytes:
    """Scalars over `images_seen` as a PNG, the keys of a panel on the same axes.

    The y axis is logarithmic where all values are positive and span more than a factor of ten.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    height, end = math.ceil(len(panels) / 3), max([1.0, *(float(row["images_seen"]) for row in rows)])
    figure = Figure(figsize=(11, 3 * height), layout="constrained")
    FigureCanvasAgg(figure)
    for place, keys in enumerate(panels, start=1):
        axes = figure.add_subplot(height, 3, place)
        drawn: list[float] = []
        for key in keys:
            points = [
                (float(row["images_seen"]), row[key]) for row in rows if abs(row.get(key, math.inf)) < 1e100
            ]
            moments, values = [at for at, _ in points], [value for _, value in points]
            axes.plot(moments, values, marker="." if len(points) < 50 else "", label=key[:40])
            drawn += values
        log = bool(drawn) and 0 < 10 * min(drawn) < max(drawn)
        axes.set(xlabel="images_seen", yscale="log" if log else "linear", xlim=(0, end))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if keys:
            for text in axes.legend(frameon=False, fontsize=8).get_texts():
                text.set_parse_math(False)  # a key may hold a $
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
