"""What the experiments say: each claim with the numbers that bear it out or do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

Row = dict[str, Any]
Levels = dict[str, float]  # mean distance at the start and after each treatment

BEARING: dict[str, tuple[tuple[str, ...], Callable[[Levels], bool]]] = {
    "With its feedback the generator learns.": (
        ("start", "intact"), lambda of: of["intact"] < of["start"] / 2,
    ),
    "Without it, it does not.": (("start", "cut"), lambda of: abs(of["cut"] / of["start"] - 1) < 0.05),
    "It must be each sample's own: another's leaves it at twice the distance or more.": (
        ("intact", "shuffled"), lambda of: of["shuffled"] > 2 * of["intact"],
    ),
    "The mean of all samples' feedback, sent to each, teaches half the way or more.": (
        ("start", "common"), lambda of: of["common"] < of["start"] / 2,
    ),
    "Another sample's, less that mean, teaches next to nothing: three quarters of the way are left.": (
        ("start", "foreign"), lambda of: of["foreign"] > 0.75 * of["start"],
    ),
    "Its signs alone teach most of it.": (
        ("start", "intact", "sign"),
        lambda of: of["sign"] - of["intact"] < 0.2 * (of["start"] - of["intact"]),
    ),
    "The early blocks need it too: the last alone, taught, leaves a greater distance.": (
        ("intact", "last blocks"), lambda of: of["last blocks"] > 1.2 * of["intact"],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """A claim, whether the numbers bear it out, and the numbers."""

    claim: str
    holds: bool
    evidence: str


def ends(rows: list[Row], arena: str, treatment: str, dose: float | None = None) -> list[float]:
    """Distances after the runs of one treatment; its smallest dose if none is given."""
    own = [row for row in rows if (row["arena"], row["treatment"]) == (arena, treatment)]
    wanted = min((row["dose"] for row in own), default=0.0) if dose is None else dose
    return [row["end"] for row in own if row["dose"] == wanted]


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """With the standard error; 0 where there is one value."""
    return fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def response(rows: list[Row], arena: str, treatment: str) -> dict[float, tuple[float, float]]:
    """Mean distance and standard error at each dose; 0 is the intact game."""
    doses = sorted({row["dose"] for row in rows if (row["arena"], row["treatment"]) == (arena, treatment)})
    groups = {
        0.0: ends(rows, arena, "intact"),
        **{dose: ends(rows, arena, treatment, dose) for dose in doses},
    }
    return {dose: mean_and_error(values) for dose, values in groups.items()}


def judge(found: dict[str, list[Row]]) -> list[Verdict]:
    """The verdicts on what `experiments` found; a claim on several arenas has to hold on each of them."""
    rows = found["feedback"]
    verdicts = [_on_feedback(rows, claim, *bearing) for claim, bearing in BEARING.items()]
    for treatment, what in (("noise", "noisier"), ("delay", "later")):
        verdicts.append(_on_doses(rows, rows[0]["arena"], treatment, what))
    verdicts += [_on_starvation(found["starvation"]), _on_penalties(found["penalties"])]
    return [*verdicts, *_on_dirac(found["dirac"])]


def _on_feedback(
    rows: list[Row], claim: str, shown: tuple[str, ...], bears_out: Callable[[Levels], bool]
) -> Verdict:
    held, told = [], []
    for arena in dict.fromkeys(row["arena"] for row in rows):
        levels = {"start": fmean(row["start"] for row in rows if row["arena"] == arena)}
        levels |= {
            name: fmean(ends(rows, arena, name)) for name in dict.fromkeys(r["treatment"] for r in rows)
        }
        held.append(bears_out(levels))
        numbers = ", ".join(f"{name} {levels[name]:.3g}" for name in shown)
        told.append(f"{arena}: {numbers}{'' if held[-1] else ' (does not hold)'}")
    return Verdict(claim, all(held), "; ".join(told) + ".")


def _on_doses(rows: list[Row], arena: str, treatment: str, what: str) -> Verdict:
    points = response(rows, arena, treatment)
    means, bars = zip(*points.values(), strict=True)
    steps = zip(means, means[1:], bars, bars[1:], strict=False)
    rises = all(later > sooner - 2 * (bar**2 + other**2) ** 0.5 for sooner, later, bar, other in steps)
    told = ", ".join(f"{mean:.3g} +- {bar:.1g} at {dose:g}" for dose, (mean, bar) in points.items())
    return Verdict(
        f"The {what} the feedback, the worse, within two standard errors.",
        rises and means[-1] > 2 * means[0], f"{arena}, {treatment}: {told}.",
    )  # fmt: skip


def _confidence(row: Row) -> float:
    return row["confidence"]


def _on_starvation(rows: list[Row]) -> Verdict:
    share = {}
    for name in ("Minimax", "NonSaturating"):
        share[name] = max((row for row in rows if row["loss"] == name), key=_confidence)["passed"]
    confidence = max(map(_confidence, rows))
    return Verdict(
        "The saturating loss starves the generator of a confident discriminator; the other does not.",
        share["Minimax"] < 0.2 * share["NonSaturating"],
        f"With logits {confidence:.1f} apart Minimax lets pass {100 * share['Minimax']:.2g} % of the "
        f"discriminator's slope, NonSaturating {100 * share['NonSaturating']:.4g} %.",
    )


def _on_penalties(rows: list[Row]) -> Verdict:
    found = {
        name: mean_and_error([row["end"] for row in rows if row["penalty"] == name])
        for name in dict.fromkeys(row["penalty"] for row in rows)
    }
    (free, its_bar), (held, other_bar) = found["none"], found["R1"]
    told = ", ".join(f"{name} {mean:.3g} +- {bar:.1g}" for name, (mean, bar) in found.items())
    return Verdict(
        "R1 brings the generator nearer to the data, by more than two standard errors.",
        free - held > 2 * (its_bar**2 + other_bar**2) ** 0.5, f"Distance: {told}.",
    )  # fmt: skip


def _on_dirac(rows: list[Row]) -> list[Verdict]:
    free, held = (
        {row["update"]: row for row in rows if row["gamma"] == gamma} for gamma in (0.0, 1.0)
    )  # fmt: skip
    together, in_turns = free["simultaneous"], free["alternating"]
    turns = abs(together["real"]) < 1e-9 and abs(together["imaginary"] - 0.5) < 1e-9
    return [
        Verdict(
            "Without a penalty the smallest game turns for ever.",
            turns and together["left"] > 1 and 0.9 < in_turns["left"] < 1.1,
            f"Dirac-GAN: eigenvalues +- {together['imaginary']:.3g} i (theory: 1/2); after 500 updates "
            f"its turns are {together['left']:.3g} times as wide, {in_turns['left']:.3g} if alternating.",
        ),
        Verdict(
            "R1 stops the rotation.",
            all(abs(row["real"] + 0.5) < 1e-3 and row["left"] < 0.01 for row in held.values()),
            f"With gamma 1 the eigenvalues' real parts are {held['simultaneous']['real']:.3g} "
            f"(theory: -1/2); after 500 updates {held['simultaneous']['left']:.1g} of the way is left, "
            f"{held['alternating']['left']:.1g} if alternating.",
        ),
    ]
