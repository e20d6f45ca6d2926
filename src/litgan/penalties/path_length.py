"""Path length: equal steps in the latent space change a sample equally, wherever they are taken."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from litgan.losses import widen
from litgan.noise import Noise
from litgan.penalties.base import GeneratorPenalty
from litgan.penalties.gradient import normal_like
from litgan.schedules import Schedule


class PathLength(GeneratorPenalty, nn.Module):
    """Karras et al. 2020 (StyleGAN2), section 3.2, eq. 4:  (||J^T y|| - a)^2,  y ~ N(0, I) / sqrt(pixels).

    J is the Jacobian of a sample in the styles of a generator that has `styles` and `synthesis`, else in its
    latents; the norm is the root of the mean over layers. a is a running mean of the lengths, over all ranks,
    and is in the checkpoint.

    Args:
        weight: As in `GeneratorPenalty`; 2 in the paper.
        every: As in `GeneratorPenalty`; 4 there.
        decay: What the running mean keeps.
        share: Of the batch that is looked at: a half there, to save memory.

    Raises:
        ValueError: As `GeneratorPenalty`; or a share that is not in (0, 1].
    """

    name = "path_length"
    mean: Tensor

    def __init__(
        self, weight: float | Schedule = 2.0, every: int = 4, decay: float = 0.99, share: float = 0.5
    ) -> None:
        nn.Module.__init__(self)
        GeneratorPenalty.__init__(self, weight, every)
        if not 0 < share <= 1:
            raise ValueError(f"PathLength has share={share!r}: give a part of the batch, above 0, up to 1.")
        self.decay, self.share = decay, share
        self.register_buffer("mean", torch.tensor(0.0))

    def __call__(
        self, generator: Any, *, latents: Tensor, labels: Tensor | None = None, noise: Noise | None = None
    ) -> Tensor:
        lengths = self.lengths(generator, latents, labels, noise)
        self.remember(lengths.detach().mean().float())
        return (lengths - self.mean.clone()).square()

    def lengths(self, generator: Any, latents: Tensor, labels: Tensor | None, noise: Noise | None) -> Tensor:
        """||J^T y|| of the first samples, [ceil(share * B)]."""
        count = math.ceil(self.share * len(latents))
        latents, labels = latents[:count], None if labels is None else labels[:count]
        with torch.enable_grad():
            if hasattr(generator, "synthesis"):
                points = generator.styles(latents, labels)
                samples = generator.synthesis(points)
            else:
                points = latents.detach().requires_grad_()
                samples = generator(points, labels)
            samples = widen(samples)
            first = None if noise is None else replace(noise, count=count)
            probe = normal_like(samples, first) / math.sqrt(math.prod(samples.shape[2:]))
            (slope,) = torch.autograd.grad((samples * probe).sum(), points, create_graph=True)
            return widen(slope).square().sum(-1).reshape(count, -1).mean(1).sqrt()

    @torch.no_grad()
    def remember(self, mean: Tensor) -> None:
        """Moves the running mean; all ranks alike."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        self.mean.lerp_(mean, 1 - self.decay)
