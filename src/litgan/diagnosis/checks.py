"""Failure states of GAN training, as thresholds on a few metrics; no networks are needed here.

`DiagnosticMetrics` measures these metrics, and `Monitor` checks them:

- `g_loss_gradient`, `d_loss_gradient`: mean |dL/dlogit| of the generator's and the discriminator's loss,
  relative to its value at logits of 0 (`metrics.relative_loss_gradient`);
- `gradient_over_eps`: root mean square of |g| / eps over the generator's parameters
  (`metrics.grad_over_eps`);
- `step_ratio`: norm of the generator's last update over the norm of its weights;
- `feedback_norm`: mean norm of dL/dx over generated samples;
- `auc`: area under D's ROC curve, the share of (real, fake) pairs in which the real logit is larger;
- `diversity`: mean distance between fakes of fixed latents, over the mean distance between reals;
- `step_cosine`: cosine between the generator's last two updates;
- `weight_norm_generator`, `weight_norm_discriminator`, `logits_rms`: Euclidean norms, and the root
  mean square of real and fake logits;
- `overfitting`, `overfitting_sigmas`: (D(train) - D(held out)) / (D(train) - D(fake)) of mean logits, and its
  numerator in standard errors; absent if the data have no held-out split;
- `pair_error`: root mean square difference of fakes and the real samples of the same condition; absent if the
  data have no such pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

Metrics: TypeAlias = Mapping[str, float]

MIN_G_LOSS_GRADIENT = 1e-2  # relative to logits of 0: sigmoid(-5.3) / sigmoid(0), i.e. D(fake) = 1/200
MIN_STEP_RATIO = 2.0**-23  # float32's epsilon: smaller updates are rounded away
MIN_GRADIENT_OVER_EPS = (
    1.0  # rms of |g| / eps: Adam's step, lr * m / (sqrt(v) + eps), is less than half of what it was
)
MIN_FEEDBACK_SHARE = 1e-3  # of the first measurement; healthy recipes stay above 0.1
INFORMED_AUC = 0.75  # between chance (0.5) and certainty; below it, a fading feedback is legitimate
MIN_D_LOSS_GRADIENT = (
    0.2  # of the derivative of D's own loss at logits of 0: wrong one time in ten; ring, digits: 0.8
)
SEPARATED_AUC = 0.999  # of 64 x 64 pairs at most 4 are in the wrong order
MIN_DIVERSITY = 0.1  # relative to reals; untrained and healthy generators stay above 0.3
MIN_STEP_COSINE = -0.5  # here |u + v| = |u| = |v|: two updates move no farther than one
MAX_WEIGHT_GROWTH = 10.0  # relative to the start; healthy recipes at most double their norm
MAX_LOGITS = 1e4  # from 8192 on bf16 resolves steps of 64: differences of order 1 are lost
MAX_OVERFITTING = (
    0.5  # held-out reals score closer to fakes than to training reals (Karras et al. 2020, eq. 1)
)
MAX_ERROR_GROWTH = 2.0  # of pairs since the adversary was let in: 6 dB of PSNR; a short dip of 3 dB is normal
MIN_OVERFITTING_SIGMAS = (
    4.0  # by which the scores of training reals must exceed those held out, to be no chance
)

MAX_LR_FACTOR = 0.1  # largest change: two roll-backs span two orders of magnitude, the usual range
MIN_LR_FACTOR = 0.01  # smallest: one roll-back spans them
PENALTY_FACTOR = 2.0  # of the penalty weights


class Result(NamedTuple):
    """The outcome of one check."""

    value: float
    threshold: float
    holds: bool


class Scaling(NamedTuple):
    """Factors of the learning rates and of the penalty weights."""

    generator_lr: float = 1.0
    discriminator_lr: float = 1.0
    penalty: float = 1.0

    def __mul__(self, other: Scaling) -> Scaling:
        return Scaling(*(one * two for one, two in zip(self, other, strict=True)))

    def __str__(self) -> str:
        names = ("the generator's learning rate", "the discriminator's learning rate", "penalty weights")
        changed = [f"{name} x {factor:.2g}" for name, factor in zip(names, self, strict=True) if factor != 1]
        return ", ".join(changed) or "nothing"


def rollback_scaling(*, generator_drift: float, discriminator_drift: float) -> Scaling:
    """The scaling for a roll-back: slows the network that drifted more, by the ratio of the drifts.

    Args:
        generator_drift: ||w - w_healthy|| / ||w_healthy|| of the generator; may be inf.
        discriminator_drift: the same of the discriminator.
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
    """The generator's weights do not change, its gradient is too small for its optimizer, or the feedback
    has vanished although D separates real from fake."""
    share = metrics["feedback_norm"] / baseline["feedback_norm"] if baseline["feedback_norm"] else math.inf
    faded = below(share if metrics["auc"] > INFORMED_AUC else math.inf, MIN_FEEDBACK_SHARE)
    causes = (
        below(metrics["step_ratio"], MIN_STEP_RATIO),
        below(metrics["gradient_over_eps"], MIN_GRADIENT_OVER_EPS),
        faded,
    )
    return next((result for result in causes if result.holds), causes[1])


def overpowered(metrics: Metrics, baseline: Metrics) -> Result:
    """D orders all pairs correctly and its own loss is flat, so that nothing corrects it.

    A Wasserstein critic is never overpowered: the derivative of its loss is 1 everywhere.
    """
    value, threshold, sure = below(metrics["d_loss_gradient"], MIN_D_LOSS_GRADIENT)
    return Result(value, threshold, sure and metrics["auc"] >= SEPARATED_AUC)


def collapsed(metrics: Metrics, baseline: Metrics) -> Result:
    return below(metrics["diversity"], MIN_DIVERSITY)


def oscillating(metrics: Metrics, baseline: Metrics) -> Result:
    return below(metrics["step_cosine"], MIN_STEP_COSINE)


def diverged(metrics: Metrics, baseline: Metrics) -> Result:
    """A metric is not finite, or weights or logits are out of range."""
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


def unfaithful(metrics: Metrics, baseline: Metrics) -> Result | None:
    if "pair_error" not in metrics:
        return None
    growth = metrics["pair_error"] / max(baseline["pair_error"], 1e-30)
    return Result(growth, MAX_ERROR_GROWTH, growth > MAX_ERROR_GROWTH)


def below(value: float, threshold: float) -> Result:
    return Result(value, threshold, value < threshold)


@dataclass(frozen=True)
class Check:
    """How to detect a state, what it means and what to try."""

    evaluate: Callable[[Metrics, Metrics], Result | None]
    meaning: str
    remedy: str
    immediate: bool = False  # one measurement is enough


CHECKS: dict[str, Check] = {
    "DIVERGED": Check(
        diverged,
        "Weights or logits have exploded, or a value is not finite.",
        "Go back to an earlier checkpoint with lower learning rates, a larger penalty, or precision 32-true.",
        immediate=True,
    ),
    "VANISHED": Check(
        vanished,
        "The generator's gradient is too small for its optimizer, or its learning rate is 0.",
        "Lower the learning rates, add R1 or raise its weight, or use normalization or skip connections.",
    ),
    "COLLAPSED": Check(
        collapsed,
        "Different latents give nearly the same sample.",
        "Lower the learning rates, raise the penalty's weight, or use a larger batch.",
    ),
    "OSCILLATING": Check(
        oscillating,
        "Each update of the generator undoes most of the previous one.",
        "Lower the generator's learning rate, or add R1, which damps the rotation.",
    ),
    "MEMORIZING": Check(
        memorizing,
        "The discriminator has memorized its training samples: it scores held-out reals like fakes.",
        "Add model.augment (litgan.augment), raise the penalty's weight, or find more data.",
    ),
    "UNFAITHFUL": Check(
        unfaithful,
        "Samples have moved away from the real ones of their inputs since the adversary was let in.",
        "Lower adversarial_weight, let the adversary in along a ramp (litgan.schedules.Linear), or raise the "
        "weights of the reconstruction terms.",
    ),
    "SATURATED": Check(
        saturated,
        "The generator's loss is flat at the fakes' logits: almost no gradient reaches the generator.",
        "Use litgan.losses.NonSaturating, or slow the discriminator: lower learning rate, larger penalty.",
    ),
    "OVERPOWERED": Check(
        overpowered,
        "The discriminator separates all fakes with confidence: its own loss hardly corrects it, and its "
        "feedback is uninformative.",
        "Raise the penalty's weight, lower the discriminator's learning rate, or give it fewer steps.",
    ),
}


@dataclass
class Evaluation:
    """The outcome of all checks on one measurement."""

    results: dict[str, Result]
    activated: list[str]  # states that have just become active
    cleared: list[str]  # and those that are no longer active


@dataclass
class Monitor:
    """Activates a state after `patience` consecutive measurements that show it, and clears it after as many
    that do not."""

    patience: int = 3
    baseline: dict[str, float] = field(default_factory=dict)  # metrics of the start or first measurement
    streaks: dict[str, int] = field(default_factory=dict)  # consecutive results that contradict `active`
    active: set[str] = field(default_factory=set)
    healthy_streak: int = 0  # consecutive measurements without any state

    @property
    def healthy(self) -> bool:
        """Whether the last `patience` measurements showed no state."""
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
        """Clears all states after a roll-back; keeps the baseline."""
        self.streaks, self.active, self.healthy_streak = {}, set(), 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "baseline": self.baseline, "streaks": self.streaks, "active": sorted(self.active),
            "healthy_streak": self.healthy_streak,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.baseline = {name: float(norm) for name, norm in state_dict["baseline"].items()}
        self.streaks = {name: int(count) for name, count in state_dict["streaks"].items()}
        self.active, self.healthy_streak = set(state_dict["active"]), int(state_dict["healthy_streak"])
