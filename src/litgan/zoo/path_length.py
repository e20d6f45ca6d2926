"""Path length regularization: steps of equal length in latent space change samples by equal amounts."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from litgan.losses import to_float32
from litgan.penalties import Context, GeneratorPenalty, mean_over_ranks
from litgan.schedules import Schedule


class PathLength(GeneratorPenalty, nn.Module):
    """Karras et al. 2020 (StyleGAN2), section 3.2, eq. 4:  (||J^T y|| - a)^2,  y ~ N(0, I) / sqrt(pixels).

    J is the Jacobian of a sample with respect to the styles if the generator has `styles` and `synthesis`,
    else to its latents; with several layers of styles the squared norm is their mean. a is a running mean of
    ||J^T y|| over all ranks, stored in checkpoints.

    Args:
        weight: 2 in the paper.
        interval: as in `Term`; 4 in the paper.
        decay: of the running mean.
        share: fraction of the batch that is used; a half there, to save memory.

    Raises:
        ValueError: as `Term`; or `share` is not in (0, 1].
    """

    name = "path_length"
    mean: Tensor

    def __init__(
        self, weight: float | Schedule = 2.0, interval: int = 4, decay: float = 0.99, share: float = 0.5
    ) -> None:
        nn.Module.__init__(self)
        GeneratorPenalty.__init__(self, weight, interval)
        if not 0 < share <= 1:
            raise ValueError(f"PathLength has share={share!r}: give a part of the batch, above 0, up to 1.")
        self.decay, self.share = decay, share
        self.register_buffer("mean", torch.tensor(0.0))

    def __call__(self, context: Context) -> Tensor:
        lengths = self.lengths(context)
        with torch.no_grad():
            self.mean.lerp_(mean_over_ranks(lengths.mean().float()), 1 - self.decay)
        return (lengths - self.mean.clone()).square()

    def lengths(self, context: Context) -> Tensor:
        """||J^T y|| of the first samples, [ceil(share * B)]."""
        latents, condition, noise, generator = (
            context.latents(), context.condition, context.noise, context.generator
        )  # fmt: skip
        count = math.ceil(self.share * len(latents))
        latents, condition = latents[:count], None if condition is None else condition[:count]
        with torch.enable_grad():
            if hasattr(generator, "synthesis"):
                points = generator.styles(latents, condition)
                samples = generator.synthesis(points)
            else:
                points = latents.detach().requires_grad_()
                samples = generator(points, condition)
            samples = to_float32(samples)
            subset = replace(context, noise=None if noise is None else replace(noise, count=count))
            probe = subset.normal_like(samples, self.name) / math.sqrt(math.prod(samples.shape[2:]))
            (gradient,) = torch.autograd.grad((samples * probe).sum(), points, create_graph=True)
            return to_float32(gradient).square().sum(-1).reshape(count, -1).mean(1).sqrt()
