"""The laboratory's results in one figure."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from litgan.lab.verdicts import ends

Row = dict[str, Any]


def draw(found: dict[str, list[Row]], path: Path) -> Path:
    """Six panels: treatments, doses of noise and delay, starvation, penalties, the Dirac-GAN; a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: Any = {
        "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold",
        "axes.titlelocation": "left", "axes.titlesize": 10,
    }  # fmt: skip
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(2, 3, figsize=(14, 8), layout="constrained")
        _treatments(axes[0, 0], found["feedback"])
        arena = found["feedback"][0]["arena"]
        for axis, name, unit in (
            (axes[0, 1], "noise", "times the feedback"),
            (axes[0, 2], "delay", "iterations"),
        ):
            _doses(axis, found["feedback"], arena, name, unit)
        _starvation(axes[1, 0], found["starvation"])
        _penalties(axes[1, 1], found["penalties"])
        _dirac(axes[1, 2], found["dirac"])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        pyplot.close(figure)
    return path


def _treatments(axis: Any, rows: list[Row]) -> None:
    names = ["intact", "sign", "shuffled", "cut"]
    arenas = list(dict.fromkeys(row["arena"] for row in rows))
    width = 0.8 / len(arenas)
    for place, arena in enumerate(arenas):
        start = fmean(row["start"] for row in rows if row["arena"] == arena)
        heights = [fmean(ends(rows, arena, name)) / start for name in names]
        axis.bar([index + place * width for index in range(len(names))], heights, width, label=arena)
    axis.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
    axis.set_xticks([index + 0.4 - width / 2 for index in range(len(names))], names)
    axis.set(
        title="The feedback, changed on its way", ylabel="distance / distance at the start", yscale="log"
    )
    axis.legend(frameon=False)


def _doses(axis: Any, rows: list[Row], arena: str, treatment: str, unit: str) -> None:
    doses = sorted({row["dose"] for row in rows if row["treatment"] == treatment})
    groups = [ends(rows, arena, "intact"), *(ends(rows, arena, treatment, dose) for dose in doses)]
    means = [fmean(values) for values in groups]
    bars = [stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0 for values in groups]
    axis.errorbar(range(len(means)), means, bars, marker="o", capsize=3)
    axis.axhline(rows[0]["start"], color="grey", linewidth=0.8, linestyle="--")
    axis.text(0, rows[0]["start"], " start", va="bottom", color="grey")
    axis.set_xticks(range(len(means)), ["0", *(f"{dose:g}" for dose in doses)])
    axis.set(title=f"{treatment.capitalize()} ({arena})", xlabel=unit, ylabel="distance", yscale="log")


def _starvation(axis: Any, rows: list[Row]) -> None:
    for name in dict.fromkeys(row["loss"] for row in rows):
        own = sorted((row for row in rows if row["loss"] == name), key=lambda row: row["confidence"])
        sizes = [max(row["passed"], 1e-8) for row in own]
        axis.plot([row["confidence"] for row in own], sizes, marker=".", label=name)
    axis.set(title="What each loss lets pass", xlabel="logits of real minus fake", yscale="log")
    axis.set_ylabel("feedback / slope of the discriminator")
    axis.legend(frameon=False, fontsize=8)


def _penalties(axis: Any, rows: list[Row]) -> None:
    for name in dict.fromkeys(row["penalty"] for row in rows):
        own = [row for row in rows if row["penalty"] == name]
        axis.scatter([row["rotation"] for row in own], [row["end"] for row in own], label=name, s=22)
    axis.set(title="With and without a penalty", yscale="log", ylabel="distance")
    axis.set_xlabel("rotation share of the generator's steps")
    axis.legend(frameon=False, fontsize=8)


def _dirac(axis: Any, rows: list[Row]) -> None:
    for gamma, kind, style in (
        (0.0, "simultaneous", "-"),
        (0.0, "alternating", "--"),
        (1.0, "alternating", "-"),
    ):
        row = next(row for row in rows if (row["gamma"], row["update"]) == (gamma, kind))
        path = row["path"]
        label = f"{kind}, gamma {gamma:g}"
        axis.plot([p[0] for p in path], [p[1] for p in path], style, linewidth=1.0, label=label)
    axis.plot(0, 0, "k+")
    axis.set(title="The Dirac-GAN", xlabel="generator", ylabel="discriminator", xlim=(-4, 4), ylim=(-4, 4))
    axis.set_aspect("equal")
    axis.legend(frameon=False, fontsize=8, loc="upper right")
