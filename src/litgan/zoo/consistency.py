"""Consistency regularization: penalties on how logits change with augmentations and with small latent noise.

Zhao et al. 2021, "Improved consistency regularization for GANs".
"""

from __future__ import annotations

import torch
from torch import Tensor

from litgan.augment import Augmentation
from litgan.losses import to_float32
from litgan.penalties import Context, GeneratorPenalty, Penalty
from litgan.schedules import Schedule


class BalancedConsistency(Penalty):
    """bCR, section 2.2:  (D(x) - D(T(x)))^2 + (D(G(z)) - D(T(G(z))))^2.

    T is applied to real and fake samples; the adversarial loss uses the samples without T.

    Args:
        augment: T, e.g. `litgan.augment.DiffAugment`; flips and shifts in the paper.
        weight: lambda, 10 in the paper.
    """

    name = "bcr"

    def __init__(self, augment: Augmentation, weight: float | Schedule = 10.0, interval: int = 1) -> None:
        super().__init__(weight, interval)
        self.augment = augment

    def __call__(self, context: Context) -> Tensor:
        differences = []
        for side in ("real", "fake"):
            samples, condition = context.augmented(getattr(context, side).detach(), side)
            uniforms = context.uniform(f"{self.name}/{side}", self.augment.num_uniforms).to(samples.device)
            augmented_logits = context.discriminator(*self.augment.pair(samples, condition, uniforms))
            differences.append(squared_difference(augmented_logits, getattr(context, f"{side}_logits")))
        return differences[0] + differences[1]


class LatentConsistency(Penalty):
    """zCR for the discriminator, section 2.3:  (D(G(z)) - D(G(z + delta)))^2,  delta ~ N(0, sigma^2).

    Args:
        weight: lambda_dis, 5 in the paper.
        sigma: 0.05 in the paper.
    """

    name = "zcr"

    def __init__(self, weight: float | Schedule = 5.0, interval: int = 1, sigma: float = 0.05) -> None:
        super().__init__(weight, interval)
        self.sigma = sigma

    def __call__(self, context: Context) -> Tensor:
        latents = context.latents()
        with torch.no_grad():
            delta = self.sigma * context.normal_like(latents, "near")
            perturbed = context.generator(latents + delta, context.condition)
            perturbed, condition = context.augmented(perturbed, "fake")
        return squared_difference(context.discriminator(perturbed, condition), context.fake_logits)


class LatentDiversity(GeneratorPenalty):
    """zCR for the generator, section 2.3:  -||G(z) - G(z + delta)||^2, mean over a sample's values.

    Used with `LatentConsistency`: it keeps the generator from ignoring small changes of the latents, to which
    the discriminator becomes insensitive.

    Args:
        weight: lambda_gen, 0.5 in the paper.
        sigma: 0.05 in the paper.
    """

    name = "zcr_generator"

    def __init__(self, weight: float | Schedule = 0.5, interval: int = 1, sigma: float = 0.05) -> None:
        super().__init__(weight, interval)
        self.sigma = sigma

    def __call__(self, context: Context) -> Tensor:
        latents, condition = context.latents(), context.condition
        perturbed_latents = latents + self.sigma * context.normal_like(latents, self.name)
        samples, perturbed = (
            to_float32(context.generator(each, condition)) for each in (latents, perturbed_latents)
        )
        return -(samples - perturbed).square().flatten(1).mean(1)


def squared_difference(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference [B] of logits [B, K], over K."""
    return (to_float32(first) - to_float32(second)).square().flatten(1).mean(1)
