"""Claims about the experiments, each checked against the measured numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

Row = dict[str, Any]
Distances = dict[str, float]  # mean distance at the start and after each transform

FEEDBACK_CLAIMS: dict[str, tuple[tuple[str, ...], Callable[[Distances], bool]]] = {
    "With its feedback the generator learns.": (
        ("start", "identity"), lambda of: of["identity"] < of["start"] / 2,
    ),
    "Without feedback it does not learn.": (
        ("start", "zero"), lambda of: abs(of["zero"] / of["start"] - 1) < 0.05,
    ),
    "With another sample's feedback the final distance is more than twice as large.": (
        ("identity", "shuffled"), lambda of: of["shuffled"] > 2 * of["identity"],
    ),
    "The batch mean of the feedback alone covers more than half of the distance.": (
        ("start", "batch mean"), lambda of: of["batch mean"] < of["start"] / 2,
    ),
    "Another sample's feedback minus the batch mean leaves more than three quarters of the distance.": (
        ("start", "shuffled residual"), lambda of: of["shuffled residual"] > 0.75 * of["start"],
    ),
    "The signs of the feedback alone cover almost as much as the feedback.": (
        ("start", "identity", "sign"),
        lambda of: of["sign"] - of["identity"] < 0.2 * (of["start"] - of["identity"]),
    ),
    "Training only the last block leaves a larger distance.": (
        ("identity", "last blocks"), lambda of: of["last blocks"] > 1.2 * of["identity"],
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A statement, whether the numbers support it, the numbers, and whether they are of training runs."""

    statement: str
    holds: bool
    evidence: str
    trained: bool = False  # short runs may not show what is true of long ones


def final_distances(rows: list[Row], setup: str, transform: str, amount: float | None = None) -> list[float]:
    """Distances after all runs of one transform, at its smallest amount if None is given."""
    own = [row for row in rows if (row["setup"], row["transform"]) == (setup, transform)]
    wanted = min((row["amount"] for row in own), default=0.0) if amount is None else amount
    return [row["end"] for row in own if row["amount"] == wanted]


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and standard error of the mean; the error of a single value is 0."""
    return fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def distances_by_amount(rows: list[Row], setup: str, transform: str) -> dict[float, tuple[float, float]]:
    """Mean final distance and standard error at each amount; 0 is the unchanged feedback."""
    amounts = sorted(
        {row["amount"] for row in rows if (row["setup"], row["transform"]) == (setup, transform)}
    )
    groups = {
        0.0: final_distances(rows, setup, "identity"),
        **{amount: final_distances(rows, setup, transform, amount) for amount in amounts},
    }
    return {amount: mean_and_error(values) for amount, values in groups.items()}


def check_claims(found: dict[str, list[Row]]) -> list[Claim]:
    """Checks all claims; a claim about several setups has to hold in each of them."""
    rows = found["feedback"]
    claims = [_on_feedback(rows, claim, *criterion) for claim, criterion in FEEDBACK_CLAIMS.items()]
    for transform, what in (("noise", "noisier"), ("delay", "later")):
        claims.append(_on_amounts(rows, rows[0]["setup"], transform, what))
    claims += [_on_loss_gradients(found["loss_gradients"]), _on_penalties(found["penalties"])]
    return [*claims, *_on_dirac(found["dirac"])]


def _on_feedback(
    rows: list[Row], claim: str, shown: tuple[str, ...], condition: Callable[[Distances], bool]
) -> Claim:
    held, evidence = [], []
    for setup in dict.fromkeys(row["setup"] for row in rows):
        levels = {"start": fmean(row["start"] for row in rows if row["setup"] == setup)}
        levels |= {
            name: fmean(final_distances(rows, setup, name))
            for name in dict.fromkeys(r["transform"] for r in rows)
        }
        held.append(condition(levels))
        numbers = ", ".join(f"{name} {levels[name]:.3g}" for name in shown)
        evidence.append(f"{setup}: {numbers}{'' if held[-1] else ' (does not hold)'}")
    return Claim(claim, all(held), "; ".join(evidence) + ".", trained=True)


def _on_amounts(rows: list[Row], setup: str, transform: str, what: str) -> Claim:
    points = distances_by_amount(rows, setup, transform)
    means, bars = zip(*points.values(), strict=True)
    steps = zip(means, means[1:], bars, bars[1:], strict=False)
    rises = all(later > sooner - 2 * (bar**2 + other**2) ** 0.5 for sooner, later, bar, other in steps)
    evidence = ", ".join(f"{mean:.3g} +- {bar:.1g} at {amount:g}" for amount, (mean, bar) in points.items())
    return Claim(
        f"The {what} the feedback, the larger the distance, within two standard errors.",
        rises and means[-1] > 2 * means[0], f"{setup}, {transform}: {evidence}.", trained=True,
    )  # fmt: skip


def _logit_gap(row: Row) -> float:
    return row["logit_gap"]


def _on_loss_gradients(rows: list[Row]) -> Claim:
    share = {}
    for name in ("Minimax", "NonSaturating"):
        share[name] = max((row for row in rows if row["loss"] == name), key=_logit_gap)["loss_derivative"]
    logit_gap = max(map(_logit_gap, rows))
    return Claim(
        "Against a confident discriminator the saturating loss has no gradient, the other has.",
        share["Minimax"] < 0.2 * share["NonSaturating"],
        f"With logits {logit_gap:.1f} apart dL/dx is {100 * share['Minimax']:.2g} % of dD/dx for Minimax, "
        f"{100 * share['NonSaturating']:.4g} % for NonSaturating.",
    )


def _on_penalties(rows: list[Row]) -> Claim:
    found = {
        name: mean_and_error([row["end"] for row in rows if row["penalty"] == name])
        for name in dict.fromkeys(row["penalty"] for row in rows)
    }
    (free, its_bar), (held, other_bar) = found["none"], found["R1"]
    evidence = ", ".join(f"{name} {mean:.3g} +- {bar:.1g}" for name, (mean, bar) in found.items())
    return Claim(
        "R1 lowers the final distance, by more than two standard errors.",
        free - held > 2 * (its_bar**2 + other_bar**2) ** 0.5, f"Distance: {evidence}.", trained=True,
    )  # fmt: skip


def _on_dirac(rows: list[Row]) -> list[Claim]:
    free, held = (
        {row["update"]: row for row in rows if row["gamma"] == gamma} for gamma in (0.0, 1.0)
    )  # fmt: skip
    simultaneous, alternating = free["simultaneous"], free["alternating"]
    at_once, in_turns = (row["amplitude_ratio"] for row in (simultaneous, alternating))
    rotates = abs(simultaneous["real"]) < 1e-9 and abs(simultaneous["imaginary"] - 0.5) < 1e-9
    return [
        Claim(
            "Without a penalty the Dirac-GAN rotates for ever.",
            rotates and at_once > 1 and 0.9 < in_turns < 1.1,
            f"Dirac-GAN: eigenvalues +- {simultaneous['imaginary']:.3g} i (theory: 1/2); after 500 updates "
            f"the amplitude is {at_once:.3g} times the first, {in_turns:.3g} if alternating.",
        ),
        Claim(
            "R1 stops the rotation.",
            all(abs(row["real"] + 0.5) < 1e-3 and row["amplitude_ratio"] < 0.01 for row in held.values()),
            f"With gamma 1 the eigenvalues' real parts are {held['simultaneous']['real']:.3g} "
            f"(theory: -1/2); after 500 updates {held['simultaneous']['amplitude_ratio']:.1g} of the "
            f"amplitude is left, {held['alternating']['amplitude_ratio']:.1g} if alternating.",
        ),
    ]
