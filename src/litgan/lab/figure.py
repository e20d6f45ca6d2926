"""Plots the results of all experiments."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from litgan.lab.claims import distances_by_amount, final_distances, mean_and_error

Row = dict[str, Any]

BLUE, ORANGE, GREEN, RED, GRAY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "0.55"
COLORS = (BLUE, ORANGE, GREEN)  # one per setup; red marks failures
MARKERS = ("o", "s", "^")
STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlelocation": "left",
    "axes.titlesize": 10, "axes.titlepad": 10, "legend.frameon": False, "lines.linewidth": 1.4,
    "figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.12,
}  # fmt: skip
NAMED = {
    "fashion_mnist": "Fashion-MNIST",
    "R1 + R2": "R1 +\nR2",
    "WGAN-GP": "WGAN-\nGP",
    "DRAGAN": "DRA-\nGAN",
}


def draw(found: dict[str, list[Row]], path: Path) -> Path:
    """Plots transforms, noise, delay, loss gradients, penalties and the Dirac-GAN into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(2, 3, figsize=(13.2, 7.6), layout="constrained")
        _transforms(axes[0, 0], found["feedback"])
        _amounts(axes[0, 1], found["feedback"], "noise", "noise / feedback")
        _amounts(axes[0, 2], found["feedback"], "delay", "age of the feedback's discriminator, iterations")
        _loss_gradients(axes[1, 0], found["loss_gradients"])
        _penalties(axes[1, 1], found["penalties"], found["feedback"][0]["setup"])
        _dirac(axes[1, 2], found["dirac"])
        titles = (
            "Feedback changed on its way", "Feedback with noise", "Feedback that comes late",
            "What each loss lets pass", "With and without a penalty", "The Dirac-GAN, with and without R1",
        )  # fmt: skip
        for axis, letter, title in zip(axes.flat, "abcdef", titles, strict=True):
            axis.set_title(rf"$\bf{{{letter}}}$   {title}")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
        pyplot.close(figure)
    return path


def _setups(rows: list[Row]) -> list[tuple[str, float, str, str]]:
    """(name, mean distance at the start, color, marker) of each setup."""
    names = dict.fromkeys(row["setup"] for row in rows)
    starts = (fmean(row["start"] for row in rows if row["setup"] == name) for name in names)
    return list(zip(names, starts, COLORS, MARKERS, strict=False))


def _from_start(axis: Any, label: str = "distance from the data / at the start") -> None:
    axis.axhline(1.0, color=GRAY, linewidth=0.8, linestyle="--", zorder=0)
    axis.set(yscale="log", ylabel=label)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")


def _transforms(axis: Any, rows: list[Row]) -> None:
    names = {
        "identity": "intact", "sign": "signs\nonly", "last blocks": "last\nblock\nonly",
        "shuffled": "another's", "batch mean": "mean\nof all", "shuffled residual": "another's\nless\nmean",
        "zero": "cut",
    }  # fmt: skip
    for place, (setup, start, color, marker) in enumerate(_setups(rows)):
        for index, name in enumerate(names):
            mean, bar = mean_and_error(final_distances(rows, setup, name))
            axis.errorbar(
                index + 0.2 * (place - 1), mean / start, bar / start, marker=marker, color=color, capsize=3,
                linestyle="", label=None if index else NAMED.get(setup, setup),
            )  # fmt: skip
    _from_start(axis)
    axis.set_xticks(range(len(names)), names.values(), fontsize=7.5)
    axis.legend(loc="lower right", bbox_to_anchor=(1.07, 0), fontsize=8, handletextpad=0.1)


def _amounts(axis: Any, rows: list[Row], transform: str, unit: str) -> None:
    for setup, start, color, marker in _setups(rows):
        points = distances_by_amount(rows, setup, transform)
        means, bars = ([value / start for value in column] for column in zip(*points.values(), strict=True))
        axis.errorbar(range(len(points)), means, bars, marker=marker, color=color, capsize=3)
    _from_start(axis)
    axis.set_xticks(range(len(points)), [f"{amount:g}" for amount in points])
    axis.set_xlabel(unit)


def _loss_gradients(axis: Any, rows: list[Row]) -> None:
    colors = {"Minimax": RED, "NonSaturating": "black"}
    line_ends = []
    for name in dict.fromkeys(row["loss"] for row in rows):
        own = sorted((row for row in rows if row["loss"] == name), key=lambda row: row["logit_gap"])
        axis.plot(
            [row["logit_gap"] for row in own], [row["loss_derivative"] for row in own],
            marker=".", color=colors.get(name, GRAY), zorder=3 if name in colors else 2,
        )  # fmt: skip
        line_ends.append((own[-1]["logit_gap"], own[-1]["loss_derivative"], name))
    _label_line_ends(axis, line_ends, colors)
    axis.set(yscale="log", xlabel="the discriminator's confidence: logit of real minus fake")
    axis.set_ylabel("feedback / slope of the discriminator")
    axis.yaxis.set_major_formatter("{x:g}")


def _label_line_ends(axis: Any, line_ends: list[tuple[float, float, str]], colors: dict[str, str]) -> None:
    """Labels lines to the right of their ends; lines that end close together share a label."""
    groups: list[list[tuple[float, float, str]]] = []
    for point in sorted(line_ends, key=lambda point: point[1]):
        if groups and point[1] < 1.25 * groups[-1][0][1]:
            groups[-1].append(point)
        else:
            groups.append([point])
    for group in groups:
        place, height, _ = group[-1]
        names = [name for _, _, name in group]
        color = next((colors[name] for name in names if name in colors), "0.35")
        axis.annotate(
            ",\n".join(names), (place, height), (6, 0), textcoords="offset points", va="center", fontsize=8,
            color=color, annotation_clip=False,
        )  # fmt: skip


def _penalties(axis: Any, rows: list[Row], setup: str) -> None:
    names = list(dict.fromkeys(row["penalty"] for row in rows))
    for index, name in enumerate(names):
        values = [row["end"] for row in rows if row["penalty"] == name]
        color = RED if name == "none" else BLUE
        spread = [index + 0.06 * (place - (len(values) - 1) / 2) for place in range(len(values))]
        axis.plot(spread, values, ".", color=color, alpha=0.5, markersize=6)
        axis.plot([index - 0.28, index + 0.28], 2 * [fmean(values)], color=color, linewidth=2)
    axis.set_xticks(range(len(names)), [NAMED.get(name, name) for name in names])
    axis.set(yscale="log", ylabel=f"distance from the data, {setup}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")


def _dirac(axis: Any, rows: list[Row]) -> None:
    for gamma, kind, color, label in (
        (0.0, "simultaneous", RED, "both at once"),
        (0.0, "alternating", GRAY, "in turns"),
        (1.0, "simultaneous", BLUE, r"both at once, R1 with $\gamma = 1$"),
    ):
        row = next(row for row in rows if (row["gamma"], row["update"]) == (gamma, kind))
        axis.plot(*zip(*row["path"], strict=True), color=color, linewidth=1.1, label=label)
    axis.plot(1, 0, "o", color="black", markersize=4)
    axis.plot(0, 0, "+", color="black", zorder=4)
    axis.annotate("start", (1, 0), (4, 3), textcoords="offset points", fontsize=8)
    axis.set(xlabel=r"generator, $\theta$", ylabel=r"discriminator, $\psi$")
    axis.set_aspect("equal", adjustable="datalim")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, columnspacing=1.2, handlelength=1.4)
