"""Verdicts: what can go wrong in a game, told from a few numbers; pure evaluation, without networks.

`Monitor` is given the vital signs of each look (see `litgan.diagnosis.Diagnosis`, which measures them):

- `g_loss_gradient`, `d_loss_gradient`: |dL/dlogit| that the generator's and the discriminator's loss pass
  at the present logits, over what they pass at logits of 0 (`telescope.derivative_share`);
- `gradient_over_eps`: root mean square of |g| / eps over the generator's parameters
  (`telescope.gradient_use`);
- `step_ratio`: norm of the generator's last step over the norm of its weights;
- `feedback_norm`: mean norm of a sample's feedback; `auc`: share of pairs that D puts in their order;
- `diversity`: mean distance between fakes of fixed latents over that between reals;
- `step_cosine`: cosine of two successive steps of the generator;
- `weight_norm_generator`, `weight_norm_discriminator`, `logits_rms`: Euclidean norms and root mean
  square;
- `overfitting`, `overfitting_sigmas`: (D(train) - D(held out)) / (D(train) - D(fake)) of mean logits, and its
  numerator in standard errors; left out where the data have no split held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

Metrics: TypeAlias = Mapping[str, float]

MIN_G_LOSS_GRADIENT = 1e-2  # of the derivative at logits of 0: sigmoid(-5.3) / sigmoid(0), D sure to 1 in 200
MIN_STEP_RATIO = 2.0**-23  # the spacing of float32 next to 1: steps that the weights themselves cannot hold
MIN_GRADIENT_OVER_EPS = (
    1.0  # rms of |g| / eps: Adam's step, lr * m / (sqrt(v) + eps), is less than half of what it was
)
MIN_FEEDBACK_SHARE = 1e-3  # of the feedback at the first look; healthy recipes fall to 1e-1 at most
INFORMED_AUC = 0.75  # halfway between guessing and knowing: feedback may fade where D cannot tell, not here
MIN_D_LOSS_GRADIENT = (
    0.2  # of the derivative of D's own loss at logits of 0: wrong one time in ten; ring, digits: 0.8
)
SEPARATED_AUC = 0.999  # of all pairs in their order: with 64 x 64 pairs, no more than 4 are not
MIN_DIVERSITY = 0.1  # of the reals' own distance; untrained and healthy generators stay above 0.3
MIN_STEP_COSINE = -0.5  # where |u + v| = |u| = |v|: two steps lead no further than one
MAX_WEIGHT_GROWTH = 10.0  # times the norm of the weights at the start; healthy recipes grow it by 2 at most
MAX_LOGITS = 1e4  # logits of which bf16 resolves steps of 64, so that differences of order 1 are lost
MAX_OVERFITTING = (
    0.5  # held-out reals score nearer to fakes than to training reals (Karras et al. 2020, eq. 1)
)
MIN_OVERFITTING_SIGMAS = (
    4.0  # by which the scores of training reals must exceed those held out, to be no chance
)

MAX_LR_FACTOR = 0.1  # of a learning rate, at most; two tries span the two orders in which those of GANs lie
MIN_LR_FACTOR = 0.01  # and at least: one try spans them
PENALTY_FACTOR = 2.0  # of the weights of penalties


class Result(NamedTuple):
    """One verdict's measure at one look."""

    value: float
    threshold: float
    holds: bool


class Scaling(NamedTuple):
    """What a roll-back multiplies, of what there is: two learning rates and the weights of the penalties."""

    generator_lr: float = 1.0
    discriminator_lr: float = 1.0
    penalty: float = 1.0

    def __mul__(self, other: Scaling) -> Scaling:  # type: ignore[override]
        return Scaling(*(one * two for one, two in zip(self, other, strict=True)))

    def __str__(self) -> str:
        names = ("the generator's learning rate", "the discriminator's learning rate", "penalty weights")
        changed = [f"{name} x {factor:.2g}" for name, factor in zip(names, self, strict=True) if factor != 1]
        return ", ".join(changed) or "nothing"


def rollback_scaling(*, generator_drift: float, discriminator_drift: float) -> Scaling:
    """What a roll-back changes: the network that went astray is slowed by how much farther it went.

    Args:
        generator_drift: How far it went from the last healthy state, relative to its weights; may be inf.
        discriminator_drift: The same.
    """
    smaller, larger = sorted((generator_drift, discriminator_drift))
    share = MIN_LR_FACTOR if math.isinf(larger) else smaller / larger if larger else 1.0
    factor = min(MAX_LR_FACTOR, max(MIN_LR_FACTOR, share))
    if generator_drift > discriminator_drift:
        return Scaling(generator_lr=factor, penalty=PENALTY_FACTOR)
    return Scaling(discriminator_lr=factor, penalty=PENALTY_FACTOR)


def saturated(metrics: Metrics, baseline: Metrics) -> Result:
    return below(metrics["g_loss_gradient"], MIN_G_LOSS_GRADIENT)


def vanished(metrics: Metrics, baseline: Metrics) -> Result:
    """The generator stands still, its gradient is too small for its optimizer, or D tells apart and sends
    next to nothing."""
    share = metrics["feedback_norm"] / baseline["feedback_norm"] if baseline["feedback_norm"] else math.inf
    faded = below(share if metrics["auc"] > INFORMED_AUC else math.inf, MIN_FEEDBACK_SHARE)
    causes = (
        below(metrics["step_ratio"], MIN_STEP_RATIO),
        below(metrics["gradient_over_eps"], MIN_GRADIENT_OVER_EPS),
        faded,
    )
    return next((result for result in causes if result.holds), causes[1])


def overpowered(metrics: Metrics, baseline: Metrics) -> Result:
    """D orders all pairs, and its own loss, satisfied, passes it no derivative: nothing corrects it any more.

    A critic's loss passes its derivative whole, however well it separates: it is meant to.
    """
    value, threshold, sure = below(metrics["d_loss_gradient"], MIN_D_LOSS_GRADIENT)
    return Result(value, threshold, sure and metrics["auc"] >= SEPARATED_AUC)


def collapsed(metrics: Metrics, baseline: Metrics) -> Result:
    return below(metrics["diversity"], MIN_DIVERSITY)


def oscillating(metrics: Metrics, baseline: Metrics) -> Result:
    return below(metrics["step_cosine"], MIN_STEP_COSINE)


def diverged(metrics: Metrics, baseline: Metrics) -> Result:
    """A number is not finite, or weights or logits have left the range in which the game is played."""
    lost = [value for value in metrics.values() if not math.isfinite(value)]
    if lost:
        return Result(lost[0], MAX_WEIGHT_GROWTH, True)
    if metrics["logits_rms"] > MAX_LOGITS:
        return Result(metrics["logits_rms"], MAX_LOGITS, True)
    names = ("weight_norm_generator", "weight_norm_discriminator")
    growth = max(metrics[name] / baseline[name] if baseline[name] else 1.0 for name in names)
    return Result(growth, MAX_WEIGHT_GROWTH, growth > MAX_WEIGHT_GROWTH)


def memorizing(metrics: Metrics, baseline: Metrics) -> Result | None:
    if "overfitting" not in metrics:
        return None
    chance = metrics["overfitting_sigmas"] < MIN_OVERFITTING_SIGMAS
    return Result(
        metrics["overfitting"], MAX_OVERFITTING, metrics["overfitting"] > MAX_OVERFITTING and not chance
    )


def below(value: float, threshold: float) -> Result:
    return Result(value, threshold, value < threshold)


@dataclass(frozen=True)
class Check:
    """What a result is called, what it means for people, and what helps."""

    evaluate: Callable[[Metrics, Metrics], Result | None]
    meaning: str
    remedy: str
    immediate: bool = False  # needs no second look


CHECKS: dict[str, Check] = {
    "DIVERGED": Check(
        diverged,
        "Weights or logits have exploded, or a number is not finite.",
        "Go back to an earlier checkpoint with lower learning rates, a larger penalty, or precision 32-true.",
        immediate=True,
    ),
    "VANISHED": Check(
        vanished,
        "The generator gets too little feedback for its optimizer to follow, or its learning rate is 0.",
        "Lower the learning rates, add R1 or raise its weight, or take a network with norms or shortcuts.",
    ),
    "COLLAPSED": Check(
        collapsed,
        "Different latents give nearly the same sample.",
        "Lower the learning rates, raise the penalty's weight, or take a larger batch.",
    ),
    "OSCILLATING": Check(
        oscillating,
        "Each step of the generator undoes most of the one before.",
        "Lower the generator's learning rate, or add R1, which damps the rotation.",
    ),
    "MEMORIZING": Check(
        memorizing,
        "The discriminator knows its training samples by heart: it scores unseen reals like fakes.",
        "Add model.augment (litgan.augment), raise the penalty's weight, or find more data.",
    ),
    "SATURATED": Check(
        saturated,
        "The generator's loss is flat where the fakes' logits lie: almost none of the discriminator's error "
        "is passed back.",
        "Take litgan.losses.NonSaturating, or slow the discriminator: lower learning rate, larger penalty.",
    ),
    "OVERPOWERED": Check(
        overpowered,
        "The discriminator tells every fake, and surely: hardly anything corrects it any more, and its "
        "feedback says little about how to do better.",
        "Raise the penalty's weight, lower the discriminator's learning rate, or give it fewer turns.",
    ),
}


@dataclass
class Evaluation:
    """What one look came to."""

    results: dict[str, Result]
    activated: list[str]  # verdicts that have just been raised
    cleared: list[str]  # and those that no longer hold


@dataclass
class Monitor:
    """Raises a verdict once it has held at `patience` looks in a row, and clears it after as many without."""

    patience: int = 3
    baseline: dict[str, float] = field(default_factory=dict)  # vital signs of the start or the first look
    streaks: dict[str, int] = field(default_factory=dict)  # looks in a row that say other than `active`
    active: set[str] = field(default_factory=set)
    healthy_streak: int = 0  # looks in a row at which nothing has held

    @property
    def healthy(self) -> bool:
        """Whether nothing has held for so long that it would have been raised by now."""
        return self.healthy_streak >= self.patience

    def __call__(self, metrics: Metrics) -> Evaluation:
        self.baseline = {**metrics, **self.baseline}
        found = {name: check.evaluate(metrics, self.baseline) for name, check in CHECKS.items()}
        evaluation = Evaluation({name: one for name, one in found.items() if one is not None}, [], [])
        for name, result in evaluation.results.items():
            self.streaks[name] = self.streaks.get(name, 0) + 1 if result.holds != (name in self.active) else 0
            if self.streaks[name] >= (1 if CHECKS[name].immediate else self.patience):
                (evaluation.activated if result.holds else evaluation.cleared).append(name)
                self.active ^= {name}
                self.streaks[name] = 0
        anything = any(result.holds for result in evaluation.results.values())
        self.healthy_streak = 0 if anything else self.healthy_streak + 1
        return evaluation

    def reset(self) -> None:
        """Forgets what was found, for the networks are others; not where the run came from."""
        self.streaks, self.active, self.healthy_streak = {}, set(), 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline, "streaks": self.streaks, "active": sorted(self.active),
            "healthy_streak": self.healthy_streak,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.baseline, self.streaks = dict(state_dict["baseline"]), dict(state_dict["streaks"])
        self.active, self.healthy_streak = set(state_dict["active"]), state_dict["healthy_streak"]
