"""Verdicts: what can go wrong in a game, told from a few numbers; pure judgement, without networks.

`Judge` is given the vital signs of each look (see `litgan.diagnosis.Health`, which measures them):

- `derivative`, `doubt`: |dL/dlogit| that the generator's and the discriminator's loss pass at the present
  logits, over what they pass at logits of 0 (`telescope.derivative_share`);
- `gradient`: root mean square of |g| / eps over the generator's parameters (`telescope.gradient_use`);
- `step`: norm of the generator's last step over the norm of its weights;
- `feedback`: mean norm of a sample's feedback; `separation`: share of pairs that D puts in their order;
- `diversity`: mean distance between fakes of fixed latents over that between reals;
- `turning`: cosine of two successive steps of the generator;
- `weights_generator`, `weights_discriminator`, `logits`: Euclidean norm, norm and root mean square;
- `overfitting`, `overfitting_sigmas`: (D(train) - D(held out)) / (D(train) - D(fake)) of mean logits, and its
  numerator in standard errors; left out where the data have no split held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

Vitals: TypeAlias = Mapping[str, float]

SATURATION = 1e-2  # of the derivative at logits of 0: sigmoid(-5.3) / sigmoid(0), D sure to 1 in 200
UNMOVED = 2.0**-23  # the spacing of float32 next to 1: steps that the weights themselves cannot hold
UNUSABLE = 1.0  # rms of |g| / eps: Adam's step, lr * m / (sqrt(v) + eps), is less than half of what it was
FADED = 1e-3  # of the feedback at the first look; healthy recipes fall to 1e-1 at most
TOLD_APART = 0.75  # halfway between guessing and knowing: feedback may fade where D cannot tell, not here
SURE = 0.2  # of the derivative of D's own loss at logits of 0: wrong one time in ten; ring, digits: 0.8
SEPARATE = 0.999  # of all pairs in their order: with 64 x 64 pairs, no more than 4 are not
UNIFORM = 0.1  # of the reals' own distance; untrained and healthy generators stay above 0.3
UNDONE = -0.5  # where |u + v| = |u| = |v|: two steps lead no further than one
EXPLODED = 10.0  # times the norm of the weights at the start; healthy recipes grow it by 2 at most
COARSE = 1e4  # logits of which bf16 resolves steps of 64, so that differences of order 1 are lost
OVERFITTED = 0.5  # held-out reals score nearer to fakes than to training reals (Karras et al. 2020, eq. 1)
SIGMAS = 4.0  # by which the scores of training reals must exceed those held out, to be no chance

SLOWER = 0.1  # of a learning rate, at most; two tries span the two orders in which those of GANs lie
SLOWEST = 0.01  # and at least: one try spans them
FIRMER = 2.0  # of the weights of penalties


class Finding(NamedTuple):
    """One verdict's measure at one look."""

    value: float
    threshold: float
    holds: bool


class Factors(NamedTuple):
    """What a roll-back multiplies, of what there is: two learning rates and the weights of the penalties."""

    generator_rate: float = 1.0
    discriminator_rate: float = 1.0
    penalty: float = 1.0

    def __mul__(self, other: Factors) -> Factors:  # type: ignore[override]
        return Factors(*(one * two for one, two in zip(self, other, strict=True)))

    def __str__(self) -> str:
        names = ("the generator's learning rate", "the discriminator's learning rate", "penalty weights")
        changed = [f"{name} x {factor:.2g}" for name, factor in zip(names, self, strict=True) if factor != 1]
        return ", ".join(changed) or "nothing"


def remedy_for(*, generator: float, discriminator: float) -> Factors:
    """What a roll-back changes: the network that went astray is slowed by how much farther it went.

    Args:
        generator: How far it went from the last healthy state, relative to its weights there; may be inf.
        discriminator: The same.
    """
    nearer, farther = sorted((generator, discriminator))
    share = SLOWEST if math.isinf(farther) else nearer / farther if farther else 1.0
    slower = min(SLOWER, max(SLOWEST, share))
    if generator > discriminator:
        return Factors(generator_rate=slower, penalty=FIRMER)
    return Factors(discriminator_rate=slower, penalty=FIRMER)


def saturated(now: Vitals, first: Vitals) -> Finding:
    return below(now["derivative"], SATURATION)


def vanished(now: Vitals, first: Vitals) -> Finding:
    """The generator stands still, its gradient is too small for its optimizer, or D tells apart and sends
    next to nothing."""
    share = now["feedback"] / first["feedback"] if first["feedback"] else math.inf
    faded = below(share if now["separation"] > TOLD_APART else math.inf, FADED)
    causes = (below(now["step"], UNMOVED), below(now["gradient"], UNUSABLE), faded)
    return next((finding for finding in causes if finding.holds), causes[1])


def overpowered(now: Vitals, first: Vitals) -> Finding:
    """D orders all pairs, and its own loss, satisfied, passes it no derivative: nothing corrects it any more.

    A critic's loss passes its derivative whole, however well it separates: it is meant to.
    """
    value, threshold, sure = below(now["doubt"], SURE)
    return Finding(value, threshold, sure and now["separation"] >= SEPARATE)


def collapsed(now: Vitals, first: Vitals) -> Finding:
    return below(now["diversity"], UNIFORM)


def oscillating(now: Vitals, first: Vitals) -> Finding:
    return below(now["turning"], UNDONE)


def diverged(now: Vitals, first: Vitals) -> Finding:
    """A number is not finite, or weights or logits have left the range in which the game is played."""
    lost = [value for value in now.values() if not math.isfinite(value)]
    if lost:
        return Finding(lost[0], EXPLODED, True)
    if now["logits"] > COARSE:
        return Finding(now["logits"], COARSE, True)
    names = ("weights_generator", "weights_discriminator")
    growth = max(now[name] / first[name] if first[name] else 1.0 for name in names)
    return Finding(growth, EXPLODED, growth > EXPLODED)


def memorising(now: Vitals, first: Vitals) -> Finding | None:
    if "overfitting" not in now:
        return None
    chance = now["overfitting_sigmas"] < SIGMAS
    return Finding(now["overfitting"], OVERFITTED, now["overfitting"] > OVERFITTED and not chance)


def below(value: float, threshold: float) -> Finding:
    return Finding(value, threshold, value < threshold)


@dataclass(frozen=True)
class Verdict:
    """What a finding is called, what it means for people, and what helps."""

    judge: Callable[[Vitals, Vitals], Finding | None]
    meaning: str
    remedy: str
    at_once: bool = False  # needs no second look


VERDICTS: dict[str, Verdict] = {
    "DIVERGED": Verdict(
        diverged,
        "Weights or logits have exploded, or a number is not finite.",
        "Go back to an earlier checkpoint with lower learning rates, a larger penalty, or precision 32-true.",
        at_once=True,
    ),
    "VANISHED": Verdict(
        vanished,
        "The generator gets too little feedback for its optimizer to follow, or its learning rate is 0.",
        "Lower the learning rates, add R1 or raise its weight, or take a network with norms or shortcuts.",
    ),
    "COLLAPSED": Verdict(
        collapsed,
        "Different latents give nearly the same sample.",
        "Lower the learning rates, raise the penalty's weight, or take a larger batch.",
    ),
    "OSCILLATING": Verdict(
        oscillating,
        "Each step of the generator undoes most of the one before.",
        "Lower the generator's learning rate, or add R1, which damps the rotation.",
    ),
    "MEMORISING": Verdict(
        memorising,
        "The discriminator knows its training samples by heart: it scores unseen reals like fakes.",
        "Add model.augment (litgan.augment), raise the penalty's weight, or find more data.",
    ),
    "SATURATED": Verdict(
        saturated,
        "The generator's loss is flat where the fakes' logits lie: almost none of the discriminator's error "
        "is passed back.",
        "Take litgan.losses.NonSaturating, or slow the discriminator: lower learning rate, larger penalty.",
    ),
    "OVERPOWERED": Verdict(
        overpowered,
        "The discriminator tells every fake, and surely: hardly anything corrects it any more, and its "
        "feedback says little about how to do better.",
        "Raise the penalty's weight, lower the discriminator's learning rate, or give it fewer turns.",
    ),
}


@dataclass
class Judgement:
    """What one look came to."""

    findings: dict[str, Finding]
    raised: list[str]  # verdicts that have just been raised
    cleared: list[str]  # and those that no longer hold


@dataclass
class Judge:
    """Raises a verdict once it has held at `patience` looks in a row, and clears it after as many without."""

    patience: int = 3
    first: dict[str, float] = field(default_factory=dict)  # vital signs of the start or the first look
    streaks: dict[str, int] = field(default_factory=dict)  # looks in a row that say other than `raised`
    raised: set[str] = field(default_factory=set)
    calm: int = 0  # looks in a row at which nothing has held

    @property
    def healthy(self) -> bool:
        """Whether nothing has held for so long that it would have been raised by now."""
        return self.calm >= self.patience

    def __call__(self, vitals: Vitals) -> Judgement:
        self.first = {**vitals, **self.first}
        found = {name: verdict.judge(vitals, self.first) for name, verdict in VERDICTS.items()}
        judgement = Judgement({name: one for name, one in found.items() if one is not None}, [], [])
        for name, finding in judgement.findings.items():
            self.streaks[name] = (
                self.streaks.get(name, 0) + 1 if finding.holds != (name in self.raised) else 0
            )
            if self.streaks[name] >= (1 if VERDICTS[name].at_once else self.patience):
                (judgement.raised if finding.holds else judgement.cleared).append(name)
                self.raised ^= {name}
                self.streaks[name] = 0
        anything = any(finding.holds for finding in judgement.findings.values())
        self.calm = 0 if anything else self.calm + 1
        return judgement

    def restart(self) -> None:
        """Forgets what was found, for the networks are others; not where the run came from."""
        self.streaks, self.raised, self.calm = {}, set(), 0

    def state_dict(self) -> dict[str, Any]:
        return {
            "first": self.first, "streaks": self.streaks, "raised": sorted(self.raised), "calm": self.calm
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.first, self.streaks = dict(state_dict["first"]), dict(state_dict["streaks"])
        self.raised, self.calm = set(state_dict["raised"]), state_dict["calm"]
