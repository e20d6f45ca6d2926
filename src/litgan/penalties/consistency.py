"""Consistency: what means the same is judged the same.

Zhao et al. 2021, "Improved consistency regularization for GANs".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from litgan.augment import Augmentation
from litgan.losses import widen
from litgan.noise import Noise
from litgan.penalties.base import GeneratorPenalty, Penalty
from litgan.penalties.gradient import normal_like
from litgan.schedules import Schedule


class BalancedConsistency(Penalty):
    """bCR, section 2.2:  (D(x) - D(T(x)))^2 + (D(G(z)) - D(T(G(z))))^2.

    T changes both sides alike; the game itself sees unchanged samples.

    Args:
        augmentation: T, e.g. `litgan.augment.DiffAugment`; flips and shifts in the paper.
        weight: lambda, 10 in the paper.
        every: As in `Penalty`.
    """

    name = "bcr"

    def __init__(self, augmentation: Augmentation, weight: float | Schedule = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)
        self.augmentation = augmentation

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
        gaps = []
        for side, samples, logits in (("real", real, real_logits), ("fake", fake, fake_logits)):
            count = self.augmentation.draws
            draws = torch.rand(len(samples), count) if noise is None else noise.stream(side).uniform(count)
            changed = self.augmentation(samples.detach(), draws.to(samples.device))
            gaps.append(gap(discriminator(changed, labels), logits))
        return gaps[0] + gaps[1]


class LatentConsistency(Penalty):
    """zCR for the discriminator, section 2.3:  (D(G(z)) - D(G(z + delta)))^2,  delta ~ N(0, sigma^2).

    Args:
        weight: lambda_dis, 5 in the paper.
        every: As in `Penalty`.
        sigma: 0.05 in the paper.
    """

    name = "zcr"

    def __init__(self, weight: float | Schedule = 5.0, every: int = 1, sigma: float = 0.05) -> None:
        super().__init__(weight, every)
        self.neighbourhood = sigma

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
        near: Tensor | None = None,
    ) -> Tensor:
        """As `Penalty`, with `near`: G(z + delta), [B, *sample_shape]."""
        if near is None:
            raise ValueError("LatentConsistency needs near=, the samples of latents beside the fakes'.")
        return gap(discriminator(near.detach(), labels), fake_logits)


class LatentDiversity(GeneratorPenalty):
    """zCR for the generator, section 2.3:  -||G(z) - G(z + delta)||^2, mean over a sample's values.

    Goes with `LatentConsistency`: the generator must not do what the discriminator is taught to overlook.

    Args:
        weight: lambda_gen, 0.5 in the paper.
        every: As in `GeneratorPenalty`.
        sigma: 0.05 in the paper.
    """

    name = "zcr_generator"

    def __init__(self, weight: float | Schedule = 0.5, every: int = 1, sigma: float = 0.05) -> None:
        super().__init__(weight, every)
        self.sigma = sigma

    def __call__(
        self, generator: Any, *, latents: Tensor, labels: Tensor | None = None, noise: Noise | None = None
    ) -> Tensor:
        near = latents + self.sigma * normal_like(latents, noise)
        moved = widen(generator(latents, labels)) - widen(generator(near, labels))
        return -moved.square().flatten(1).mean(1)


def gap(one: Tensor, other: Tensor) -> Tensor:
    """Squared difference [B] of two judgements [B, K], mean over K."""
    return (widen(one) - widen(other)).square().flatten(1).mean(1)
