"""Regularizers of the discriminator and of the generator: one unweighted value per sample.

The update minimizes  loss + weight * interval * penalty,  in every `interval`-th update of the network only
(lazy regularization, Karras et al. 2020, appendix B). In the equations D(x) is the mean of a sample's K
logits and the norm is that of all elements of a sample. With an augmentation T, R1, R2 and their finite
differences are those of D(T(x)) by the sample x before it, as in the code of Karras et al. 2020b (ADA); the
other penalties are of what D got, T(x). With batch norm a discriminator has no gradient per sample: use
another norm.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from litgan.losses import to_float32
from litgan.noise import Noise
from litgan.schedules import Schedule, value_at

NOTHING = torch.empty(0)


@dataclass
class Context:
    """What penalties and reconstruction terms are computed from.

    Samples are those before augmentation, logits those after it. The generator's update has fakes with their
    graph and no logits here.
    """

    generator: Any  # (latents, condition) -> samples
    discriminator: Callable[..., Tensor]  # (samples, condition) -> logits
    condition: Tensor | None = None
    noise: Noise | None = None  # of this update; None draws from torch's global generator
    augment: Callable[..., tuple[Tensor, Tensor | None]] = lambda samples, condition, noise: (
        samples,
        condition,
    )
    real: Tensor = NOTHING  # [B, *sample_shape]
    fake: Tensor = NOTHING
    real_logits: Tensor = NOTHING  # [B, K], graph included
    fake_logits: Tensor = NOTHING

    def augmented(self, samples: Tensor, side: Literal["real", "fake"]) -> tuple[Tensor, Tensor | None]:
        """Samples and condition as the discriminator gets them, changed as this update's other ones."""
        noise = self.noise and self.noise.stream(side)
        return self.augment(samples, self.condition, noise)

    def latents(self) -> Tensor:
        """The latents [B, latent_dim] of this update's fake samples."""
        if self.noise is None:
            return torch.randn(len(self.fake), self.generator.latent_dim)
        return self.noise.normal(self.generator.latent_dim)

    def normal_like(self, samples: Tensor, name: str) -> Tensor:
        """Standard normal numbers of the samples' shape and dtype, from the stream of this name."""
        if self.noise is None:
            return torch.randn_like(samples)
        return self.noise.stream(name).normal(*samples.shape[1:]).to(samples)

    def uniform(self, name: str, size: int) -> Tensor:
        """Uniform numbers in [0, 1), [B, size], from the stream of this name."""
        if self.noise is None:
            return torch.rand(len(self.real), size)
        return self.noise.stream(name).uniform(size)


class Term(ABC):
    """A weighted term of a loss.

    Args:
        weight: its factor: a number of at least 0, or a schedule of `images_seen`.
        interval: computed in every `interval`-th update of its network, and multiplied by it.

    Raises:
        ValueError: `weight` is negative or not finite, or `interval` is not an integer of at least 1.
    """

    kind: ClassVar[str] = "penalty"
    name: ClassVar[str]  # logged as <kind>/<name>; also the name of its random numbers

    def __init__(self, weight: float | Schedule = 1.0, interval: int = 1) -> None:
        if not isinstance(weight, Schedule) and not 0 <= weight < math.inf:
            raise ValueError(
                f"{type(self).__name__} has weight={weight!r}: "
                "give a finite number of at least 0, or a schedule of images_seen."
            )
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise ValueError(
                f"{type(self).__name__} has interval={interval!r}: give a number of updates, at least 1."
            )
        self.weight, self.interval = weight, interval

    @abstractmethod
    def __call__(self, context: Context) -> Tensor:
        """Its values [B], differentiable in the network's parameters."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weight={self.weight!r}, interval={self.interval})"


AnyTerm = TypeVar("AnyTerm", bound=Term)


def due_terms(terms: Sequence[AnyTerm], updates: int) -> list[AnyTerm]:
    """Those of the terms that enter the next update of their network, after so many."""
    return [term for term in terms if updates % term.interval == 0]


def add_terms(
    loss: Tensor, logs: dict[str, Tensor], due: Sequence[Term], context: Context, images_seen: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Lazy terms: in every `interval`-th update, `interval` times as strong."""
    for term in due:
        value = term(context).mean()
        loss = loss + value_at(term.weight, images_seen) * term.interval * value
        logs[f"{term.kind}/{term.name}"] = value
    return loss, logs


class GeneratorPenalty(Term):
    """A term of the generator's loss; arguments as in `Term`."""


class Reconstruction(Term):
    """A term of the generator's loss that compares fakes with their real samples; see `reconstruction`."""

    kind = "reconstruction"

    def __init__(self, weight: float | Schedule = 1.0) -> None:
        super().__init__(weight)


class Penalty(Term):
    """A term of the discriminator's loss; arguments as in `Term`."""

    # "real", "fake": samples that must require grad before the discriminator's pass. List "fake" too if the
    # penalty uses `fake_logits`: one-stage updates separate the gradient of the loss from the penalty's.
    differentiates: ClassVar[tuple[str, ...]] = ()

    def setup(self, sample_shape: tuple[int, ...], batch_size: int) -> None:
        """Called before training with the shape of one sample and the batch size over all ranks."""

    def input_gradient(self, *, samples: Tensor, logits: Tensor) -> Tensor:
        """Each sample's gradient of its mean logit, flattened, in at least float32: [B, N].

        Raises RuntimeError: the logits were not computed from these samples with gradients enabled.
        """
        gradient = None
        if samples.requires_grad and logits.requires_grad:
            # Sample i's logits depend on sample i alone, so one pass through the sum gives all B gradients.
            total = to_float32(logits).flatten(1).mean(1).sum()
            (gradient,) = torch.autograd.grad(total, samples, create_graph=True, allow_unused=True)
        if gradient is None:
            raise RuntimeError(
                f"Penalty {self.name!r} finds no gradient of the logits with respect to the samples: what "
                f"its `differentiates` names, {self.differentiates}, must require grad before the pass "
                "through the discriminator, with grad enabled."
            )
        return to_float32(gradient).flatten(1)

    def distance_from_norm(
        self, context: Context, points: Tensor, condition: Tensor | None, target: float
    ) -> Tensor:
        """(||grad D(points)|| - target)^2, [B], by a pass of its own."""
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            logits = context.discriminator(points, condition)
            gradient = self.input_gradient(samples=points, logits=logits)
            # vector_norm, unlike sqrt of a sum, has a finite gradient where the critic is flat.
            return (torch.linalg.vector_norm(gradient, dim=1) - target).square()


class ZeroCentered(Penalty):
    """Base of R1 and R2: `weight` is gamma / 2, or gamma is given, or follows from a rule.

    Args:
        gamma: twice the weight, as papers state it. "auto": 0.0002 * pixels / batch, with the pixels of a
            sample (over its channels' number) and the batch over all ranks: the rule of StyleGAN2-ADA's own
            "auto" recipe, after Karras et al. 2020, appendix C.

    Raises:
        ValueError: as `Term`; or gamma is neither a number nor "auto".
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        interval: int = 1,
        gamma: float | Literal["auto"] | None = None,
    ) -> None:
        if isinstance(gamma, str) and gamma != "auto":
            raise ValueError(f"{type(self).__name__} has gamma={gamma!r}: give a number, or auto.")
        self.automatic = gamma == "auto"
        super().__init__(weight if gamma is None or self.automatic else float(gamma) / 2, interval)

    def setup(self, sample_shape: tuple[int, ...], batch_size: int) -> None:
        if not self.automatic:
            return
        if not batch_size:
            raise ValueError(
                f"{type(self).__name__} has gamma=auto, but the data has no batch_size: give a number."
            )
        self.weight = 0.0002 * math.prod(sample_shape[1:] or sample_shape) / batch_size / 2


class R1(ZeroCentered):
    """Zero-centered penalty on real samples, Mescheder et al. 2018, eq. 9:  gamma / 2 * ||grad D(x)||^2.

    The call returns the squared norm, so `weight` is gamma / 2. It differentiates the loss's own logits.
    """

    name = "r1"
    differentiates = ("real",)

    def __call__(self, context: Context) -> Tensor:
        return self.input_gradient(samples=context.real, logits=context.real_logits).square().sum(1)


class R2(ZeroCentered):
    """As `R1` on fake samples, Mescheder et al. 2018, eq. 10:  gamma / 2 * ||grad D(G(z))||^2."""

    name = "r2"
    differentiates = ("fake",)

    def __call__(self, context: Context) -> Tensor:
        return self.input_gradient(samples=context.fake, logits=context.fake_logits).square().sum(1)


class WGANGP(Penalty):
    """One-centered penalty of Gulrajani et al. 2017, eq. 3:  lambda * (||grad D(x^)|| - target)^2.

    x^ = epsilon * x + (1 - epsilon) * G(z), with one epsilon ~ U[0, 1) a sample and the same condition; if an
    augmentation has moved an image condition in two ways, a mixture of these.

    Args:
        weight: lambda, 10 in the paper.
        target: the norm aimed at: the Lipschitz constant of the critic.
    """

    name = "wgan_gp"

    def __init__(self, weight: float | Schedule = 10.0, interval: int = 1, target: float = 1.0) -> None:
        super().__init__(weight, interval)
        self.target = target

    def __call__(self, context: Context) -> Tensor:
        real, condition = context.augmented(context.real, "real")
        fake, of_fake = context.augmented(context.fake, "fake")
        epsilon = context.uniform(self.name, 1).to(real).view(len(real), *[1] * (real.ndim - 1))
        if condition is not of_fake:
            assert condition is not None and of_fake is not None  # they were moved
            condition = torch.lerp(of_fake, condition, epsilon.view(-1, 1, 1, 1))
        return self.distance_from_norm(context, epsilon * real + (1 - epsilon) * fake, condition, self.target)


class DRAGAN(Penalty):
    """Penalty around the data, Kodali et al. 2017, section 2.3:  lambda * (||grad D(x + delta)|| - k)^2.

    delta ~ N(0, c I); here c is the square of `deviation` times the standard deviation of the sample's own
    values, so that it fits data of any scale.

    Args:
        weight: lambda, 10 in the paper.
        deviation: size of delta, in standard deviations of a sample.
        target: k, the norm aimed at.
    """

    name = "dragan"

    def __init__(
        self, weight: float | Schedule = 10.0, interval: int = 1, deviation: float = 0.5, target: float = 1.0
    ) -> None:
        super().__init__(weight, interval)
        self.deviation, self.target = deviation, target

    def __call__(self, context: Context) -> Tensor:
        real, condition = context.augmented(context.real, "real")
        spread = real.detach().flatten(1).std(1).view(len(real), *[1] * (real.ndim - 1))
        points = real + self.deviation * spread * context.normal_like(real, self.name)
        return self.distance_from_norm(context, points, condition, self.target)


class FiniteDifferenceR1(ZeroCentered):
    """R1 without a second derivative (Lin et al. 2025, "Diffusion adversarial post-training", eq. 5).

    ((D(x + sigma * epsilon) - D(x)) / sigma)^2 with epsilon ~ N(0, I), whose mean tends to ||grad D(x)||^2 as
    sigma falls: `weight` means what R1's does. One more pass, for networks without a double backward. In bf16
    the difference of two logits is coarse: give a sigma of 0.1.

    Args:
        sigma: standard deviation of the step.
    """

    name = "r1_finite"
    side: ClassVar[Literal["real", "fake"]] = "real"

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        interval: int = 1,
        gamma: float | Literal["auto"] | None = None,
        sigma: float = 0.01,
    ) -> None:
        super().__init__(weight, interval, gamma)
        if not sigma > 0:
            raise ValueError(f"{type(self).__name__} has sigma={sigma!r}: give a positive step.")
        self.sigma = sigma

    def __call__(self, context: Context) -> Tensor:
        samples, logits = getattr(context, self.side), getattr(context, f"{self.side}_logits")
        moved = samples.detach() + self.sigma * context.normal_like(samples, self.name)
        moved_logits = context.discriminator(*context.augmented(moved, self.side))
        difference = to_float32(moved_logits) - to_float32(logits)
        return (difference.flatten(1).mean(1) / self.sigma).square()


class FiniteDifferenceR2(FiniteDifferenceR1):
    """R2 without a second derivative: as `FiniteDifferenceR1`, on fake samples."""

    name = "r2_finite"
    side = "fake"


class LeCam(Penalty, nn.Module):
    """Tseng et al. 2021, "Regularizing GANs under limited data", eq. 3:

        (D(x) - alpha_F)^2 + (D(G(z)) - alpha_R)^2,

    where alpha_R and alpha_F are running means of the logits of reals and fakes, over all ranks; they are
    in the checkpoint. In the first 1 / (1 - decay) updates they are plain means. The authors' code, unlike
    the equation, squares only differences D(x) - alpha_F and alpha_R - D(G(z)) above zero.

    Args:
        weight: 0.3 with BigGAN on CIFAR-10, 0.01 with StyleGAN2 in the paper.
        decay: gamma of eq. 4, the weight that an old mean keeps.
    """

    name = "lecam"
    means: Tensor
    updates: Tensor

    def __init__(self, weight: float | Schedule = 0.3, interval: int = 1, decay: float = 0.99) -> None:
        nn.Module.__init__(self)
        Penalty.__init__(self, weight, interval)
        self.decay = decay
        self.register_buffer("means", torch.zeros(2))  # of reals, of fakes
        self.register_buffer("updates", torch.tensor(0.0))

    def __call__(self, context: Context) -> Tensor:
        real, fake = (
            to_float32(logits).flatten(1).mean(1) for logits in (context.real_logits, context.fake_logits)
        )
        with torch.no_grad():
            means = mean_over_ranks(torch.stack([real.mean(), fake.mean()]).float())
            self.means.lerp_(means, (1 / (self.updates + 1)).clamp_min(1 - self.decay))
            self.updates += 1
        mean_of_reals, mean_of_fakes = self.means.clone()
        return (real - mean_of_fakes).square() + (fake - mean_of_reals).square()


def mean_over_ranks(values: Tensor) -> Tensor:
    """The tensor, averaged in place over all ranks."""
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values
