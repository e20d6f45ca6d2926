"""Gradient penalties: what keeps the discriminator smooth, one unweighted value per sample.

The training step minimises  loss + weight * every * penalty,  on every `every`-th discriminator turn
only (lazy regularisation, Karras et al. 2020, appendix B). In the equations D(x) is the mean of a
sample's K logits and the norm runs over all of the sample's elements, whatever its shape. A
discriminator that mixes samples (batch norm) has no gradient per sample: use another norm with it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from litgan.losses import widen
from litgan.noise import Noise
from litgan.schedules import Schedule


class Penalty(ABC):
    """A term of the discriminator's loss, called as `penalty(discriminator, real=..., fake=..., ...) -> [B]`.

    Args:
        weight: Factor of the penalty: a number of at least 0, or a schedule of `images_seen`.
        every: Applied on every `every`-th discriminator turn, times `every`.

    Raises:
        ValueError: `weight` is negative or not finite, or `every` is not an integer of at least 1.
    """

    name: ClassVar[str]  # logged as penalty/<name>
    differentiates: ClassVar[
        tuple[str, ...]
    ] = ()  # "real", "fake": require grad before the pass; name "fake"
    # also where `fake_logits` enter: one stage has to tell the loss's gradient from the penalty's

    def __init__(self, weight: float | Schedule = 1.0, every: int = 1) -> None:
        if not isinstance(weight, Schedule) and not 0 <= weight < math.inf:
            raise ValueError(
                f"{type(self).__name__} has weight={weight!r}: "
                "give a finite number of at least 0, or a schedule of images_seen."
            )
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(
                f"{type(self).__name__} has every={every!r}: "
                "give the period in discriminator turns, an integer of at least 1."
            )
        self.weight = weight
        self.every = every

    @abstractmethod
    def __call__(
        self,
        discriminator: Callable[..., Tensor],
        *,
        real: Tensor,
        fake: Tensor,
        real_logits: Tensor,
        fake_logits: Tensor,
        labels: Tensor | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        """The penalty [B], differentiable in the discriminator's parameters.

        Args:
            discriminator: For penalties that look at other points than the loss did.
            real: Real samples [B, *sample_shape].
            fake: Generated samples [B, *sample_shape].
            real_logits: The discriminator's logits [B, K] of `real`, graph included.
            fake_logits: The discriminator's logits [B, K] of `fake`, graph included.
            labels: Classes [B] that both were judged with, or None.
            noise: Where random points come from; None draws from torch's global generator.

        Raises:
            RuntimeError: The logits do not lead back to the samples that `differentiates` names.
        """

    def gradients(self, *, samples: Tensor, logits: Tensor) -> Tensor:
        """Each sample's gradient of its mean logit, flattened, in at least float32: [B, N]."""
        gradient = None
        if samples.requires_grad and logits.requires_grad:
            # Sample i's logits depend on sample i alone, so one pass through the sum gives all B gradients.
            total = widen(logits).flatten(1).mean(1).sum()
            (gradient,) = torch.autograd.grad(total, samples, create_graph=True, allow_unused=True)
        if gradient is None:
            raise RuntimeError(
                f"Penalty {self.name!r} finds no way back from the logits to the samples: what its "
                f"`differentiates` names, {self.differentiates}, must require grad before the pass through "
                "the discriminator, with grad enabled."
            )
        return widen(gradient).flatten(1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weight={self.weight!r}, every={self.every})"


class R1(Penalty):
    """Zero-centred penalty on real samples, Mescheder et al. 2018, eq. 9:  gamma / 2 * ||grad D(x)||^2.

    The call returns the squared norm, so `weight` is gamma / 2. No second pass: it differentiates the
    logits that the loss computed.
    """

    name = "r1"
    differentiates = ("real",)

    def __call__(
        self,
        discriminator: Callable[..., Tensor],
        *,
        real: Tensor,
        fake: Tensor,
        real_logits: Tensor,
        fake_logits: Tensor,
        labels: Tensor | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        return self.gradients(samples=real, logits=real_logits).square().sum(1)


class R2(Penalty):
    """Zero-centred penalty on fake samples, Mescheder et al. 2018, eq. 10:  gamma / 2 * ||grad D(G(z))||^2.

    As `R1`: the call returns the squared norm and `weight` is gamma / 2. R3GAN uses both.
    """

    name = "r2"
    differentiates = ("fake",)

    def __call__(
        self,
        discriminator: Callable[..., Tensor],
        *,
        real: Tensor,
        fake: Tensor,
        real_logits: Tensor,
        fake_logits: Tensor,
        labels: Tensor | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        return self.gradients(samples=fake, logits=fake_logits).square().sum(1)


class WGANGP(Penalty):
    """One-centred penalty of Gulrajani et al. 2017, eq. 3:  lambda * (||grad D(x^)|| - target)^2.

    x^ = epsilon * x + (1 - epsilon) * G(z), with one epsilon ~ U[0, 1) a sample. `weight` is lambda
    (10 in the paper). The discriminator judges the interpolates in a pass of its own, with the same labels.

    Args:
        weight: As in `Penalty`.
        every: As in `Penalty`.
        target: The norm aimed at: the Lipschitz constant that the critic is held to.
    """

    name = "wgan_gp"

    def __init__(self, weight: float | Schedule = 10.0, every: int = 1, target: float = 1.0) -> None:
        super().__init__(weight, every)
        self.target = target

    def __call__(
        self,
        discriminator: Callable[..., Tensor],
        *,
        real: Tensor,
        fake: Tensor,
        real_logits: Tensor,
        fake_logits: Tensor,
        labels: Tensor | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        epsilon = torch.rand(len(real), 1, device=real.device) if noise is None else noise.uniform(1)
        epsilon = epsilon.to(real).view(len(real), *[1] * (real.ndim - 1))
        with torch.enable_grad():
            points = (epsilon * real + (1 - epsilon) * fake).detach().requires_grad_()
            gradients = self.gradients(samples=points, logits=discriminator(points, labels))
            # vector_norm, unlike sqrt of a sum, has a finite gradient where the critic is flat.
            return (torch.linalg.vector_norm(gradients, dim=1) - self.target).square()
