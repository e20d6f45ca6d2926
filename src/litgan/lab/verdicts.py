"""What the experiments say: each claim with the numbers that bear it out or do not."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """A claim, whether the numbers bear it out, and the numbers."""

    claim: str
    holds: bool
    evidence: str


def ends(rows: list[Row], arena: str, treatment: str, dose: float = 0.0) -> list[float]:
    """Distances after the runs of one treatment."""
    wanted = (arena, treatment, dose)
    return [row["end"] for row in rows if (row["arena"], row["treatment"], row["dose"]) == wanted]


def judge(found: dict[str, list[Row]]) -> list[Verdict]:
    """The verdicts on what `experiments` found."""
    rows = found["feedback"]
    verdicts = []
    for arena in dict.fromkeys(row["arena"] for row in rows):
        verdicts += _on_feedback(rows, arena)
    first = rows[0]["arena"]
    for treatment, what in (("noise", "noisier"), ("delay", "later")):
        verdicts.append(_on_doses(rows, first, treatment, what))
    verdicts += [*_on_starvation(found["starvation"]), *_on_penalties(found["penalties"])]
    return [*verdicts, *_on_dirac(found["dirac"])]


def _on_feedback(rows: list[Row], arena: str) -> list[Verdict]:
    start = fmean(row["start"] for row in rows if row["arena"] == arena)
    intact, cut, sign, shuffled = (
        fmean(ends(rows, arena, name)) for name in ("intact", "cut", "sign", "shuffled")
    )
    told = f"{arena}: distance {start:.3g} at the start"
    return [
        Verdict(
            "With its feedback the generator learns.", intact < start / 2, f"{told}, {intact:.3g} after."
        ),
        Verdict(
            "Without it, it does not.", abs(cut / start - 1) < 0.05, f"{told}, {cut:.3g} with feedback cut."
        ),
        Verdict(
            "It must be each sample's own.", shuffled > 2 * intact,
            f"{told}, {shuffled:.3g} with that of another sample, {intact:.3g} with its own.",
        ),
        Verdict(
            "Its signs alone teach most of it.", sign - intact < 0.2 * (start - intact),
            f"{told}, {sign:.3g} from signs, {intact:.3g} intact.",
        ),
    ]  # fmt: skip


def _on_doses(rows: list[Row], arena: str, treatment: str, what: str) -> Verdict:
    doses = sorted({row["dose"] for row in rows if row["treatment"] == treatment})
    response = [ends(rows, arena, "intact"), *(ends(rows, arena, treatment, dose) for dose in doses)]
    means = [fmean(values) for values in response]
    bars = [stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0 for values in response]
    steps = zip(means, means[1:], bars, bars[1:], strict=False)
    rises = all(later > sooner - 2 * (bar**2 + other**2) ** 0.5 for sooner, later, bar, other in steps)
    told = ", ".join(
        f"{mean:.3g} +- {bar:.1g} at {dose:g}"
        for mean, bar, dose in zip(means, bars, [0, *doses], strict=True)
    )
    return Verdict(
        f"The {what} the feedback, the worse, within two standard errors.",
        rises and means[-1] > means[0], f"{arena}, {treatment}: {told}.",
    )  # fmt: skip


def _confidence(row: Row) -> float:
    return row["confidence"]


def _on_starvation(rows: list[Row]) -> list[Verdict]:
    share = {}
    for name in ("Minimax", "NonSaturating"):
        share[name] = max((row for row in rows if row["loss"] == name), key=_confidence)["passed"]
    confidence = max(map(_confidence, rows))
    return [
        Verdict(
            "The saturating loss starves the generator of a confident discriminator; the other does not.",
            share["Minimax"] < 0.2 * share["NonSaturating"],
            f"With logits {confidence:.1f} apart Minimax lets pass {100 * share['Minimax']:.2g} % of the "
            f"discriminator's slope, NonSaturating {100 * share['NonSaturating']:.2g} %.",
        )
    ]  # fmt: skip


def _on_penalties(rows: list[Row]) -> list[Verdict]:
    mean = {
        name: [fmean(row[key] for row in rows if row["penalty"] == name) for key in ("end", "rotation")]
        for name in dict.fromkeys(row["penalty"] for row in rows)
    }
    best = min((name for name in mean if name != "none"), key=lambda name: mean[name][0])
    return [
        Verdict(
            "A gradient penalty brings the generator nearer to the data.", mean["R1"][0] < mean["none"][0],
            f"Distance {mean['none'][0]:.3g} without, {mean['R1'][0]:.3g} with R1; best {best} "
            f"({mean[best][0]:.3g}).",
        )
    ]  # fmt: skip


def _on_dirac(rows: list[Row]) -> list[Verdict]:
    free = next(row for row in rows if row["gamma"] == 0 and row["update"] == "simultaneous")
    held = next(row for row in rows if row["gamma"] == 1 and row["update"] == "simultaneous")
    turns = abs(free["real"]) < 1e-9 and abs(free["imaginary"] - 0.5) < 1e-9
    return [
        Verdict(
            "Without a penalty the smallest game turns for ever.", turns and free["left"] > 1,
            f"Dirac-GAN: eigenvalues +- {free['imaginary']:.3g} i (theory: 1/2); after 500 simultaneous "
            f"updates its turns are {free['left']:.3g} times as wide.",
        ),
        Verdict(
            "R1 stops the rotation.", held["real"] < 0 and held["left"] < 0.1,
            f"With gamma 1 the eigenvalues' real parts are {held['real']:.3g} (theory: -1/2), "
            f"and {held['left']:.1g} of the way is left after 500 updates.",
        ),
    ]  # fmt: skip
