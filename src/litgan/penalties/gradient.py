"""Gradient penalties: what keeps the discriminator smooth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from litgan.losses import widen
from litgan.noise import Noise
from litgan.penalties.base import Penalty
from litgan.schedules import Schedule


class ZeroCentred(Penalty):
    """What R1 and R2 share: `weight` is gamma / 2, or gamma is given, or found by a rule.

    Args:
        weight: As in `Penalty`.
        every: As in `Penalty`.
        gamma: Twice the weight, as papers state it. "auto": 0.0002 * pixels / batch, with the pixels of a
            sample (over its channels' number) and the batch over all ranks: the rule of StyleGAN2-ADA's own
            "auto" recipe, after Karras et al. 2020, appendix C. Larger pictures need more, larger batches
            less.

    Raises:
        ValueError: As `Penalty`; or gamma is neither a number nor "auto".
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        every: int = 1,
        gamma: float | Literal["auto"] | None = None,
    ) -> None:
        if isinstance(gamma, str) and gamma != "auto":
            raise ValueError(f"{type(self).__name__} has gamma={gamma!r}: give a number, or auto.")
        self.automatic = gamma == "auto"
        super().__init__(weight if gamma is None or self.automatic else float(gamma) / 2, every)

    def settle(self, sample_shape: tuple[int, ...], batch_size: int) -> None:
        if self.automatic and not batch_size:
            raise ValueError(
                f"{type(self).__name__} has gamma=auto, but the data tell no batch_size: give a number."
            )
        if self.automatic:
            self.weight = automatic_gamma(sample_shape, batch_size) / 2


def automatic_gamma(sample_shape: tuple[int, ...], batch_size: int) -> float:
    """gamma = 0.0002 * pixels / batch_size; see `ZeroCentred`."""
    return 0.0002 * math.prod(sample_shape[1:] or sample_shape) / batch_size


class R1(ZeroCentred):
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


class R2(ZeroCentred):
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


class DRAGAN(Penalty):
    """Penalty around the data, Kodali et al. 2017, section 2.3:  lambda * (||grad D(x + delta)|| - k)^2.

    delta ~ N(0, c I); here c is the square of `deviation` times the standard deviation of the sample's own
    values, so that it fits data of any scale. `weight` is lambda (10 in the paper).

    Args:
        weight: As in `Penalty`.
        every: As in `Penalty`.
        deviation: Size of the step away from the data, in standard deviations of a sample.
        target: k, the norm aimed at.
    """

    name = "dragan"

    def __init__(
        self,
        weight: float | Schedule = 10.0,
        every: int = 1,
        deviation: float = 0.5,
        target: float = 1.0,
    ) -> None:
        super().__init__(weight, every)
        self.deviation, self.target = deviation, target

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
        spread = real.detach().flatten(1).std(1).view(len(real), *[1] * (real.ndim - 1))
        with torch.enable_grad():
            points = real + self.deviation * spread * normal_like(real, noise)
            points = points.detach().requires_grad_()
            gradients = self.gradients(samples=points, logits=discriminator(points, labels))
            return (torch.linalg.vector_norm(gradients, dim=1) - self.target).square()


class FiniteDifferenceR1(ZeroCentred):
    """R1 without a second derivative (Lin et al. 2025, "Diffusion adversarial post-training", eq. 5).

    ((D(x + sigma * epsilon) - D(x)) / sigma)^2 with epsilon ~ N(0, I), whose mean tends to ||grad D(x)||^2 as
    sigma falls: `weight` means what R1's does. One more pass, of first order: it compiles, and runs where a
    network has no double backward. In bf16 the difference of two logits is coarse: give sigma of 0.1.

    Args:
        weight: As in `R1`.
        every: As in `Penalty`.
        gamma: As in `R1`.
        sigma: Standard deviation of the step.
    """

    name = "r1_finite"

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        every: int = 1,
        gamma: float | Literal["auto"] | None = None,
        sigma: float = 0.01,
    ) -> None:
        super().__init__(weight, every, gamma)
        if not sigma > 0:
            raise ValueError(f"{type(self).__name__} has sigma={sigma!r}: give a positive step.")
        self.sigma = sigma

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
        return self.slope(discriminator, real, real_logits, labels, noise)

    def slope(
        self,
        discriminator: Callable[..., Tensor],
        samples: Tensor,
        logits: Tensor,
        labels: Tensor | None,
        noise: Noise | None,
    ) -> Tensor:
        """The squared slope [B] of the mean logit, from `samples` one step aside."""
        aside = samples.detach() + self.sigma * normal_like(samples, noise)
        rise = widen(discriminator(aside, labels)) - widen(logits)
        return (rise.flatten(1).mean(1) / self.sigma).square()


class FiniteDifferenceR2(FiniteDifferenceR1):
    """R2 without a second derivative: as `FiniteDifferenceR1`, on fake samples."""

    name = "r2_finite"

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
        return self.slope(discriminator, fake, fake_logits, labels, noise)


def normal_like(samples: Tensor, noise: Noise | None) -> Tensor:
    """Standard normal numbers of the samples' shape and dtype."""
    drawn = torch.randn_like(samples) if noise is None else noise.normal(*samples.shape[1:])
    return drawn.to(samples)
