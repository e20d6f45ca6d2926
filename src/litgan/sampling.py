"""Drawing from a generator: classes, truncation, interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litgan.noise import Noise

CHUNK = 250  # samples a forward pass


def draw(
    generator: nn.Module, noise: Noise, condition: Tensor | None = None, truncation: float | None = None
) -> Tensor:
    """Samples [noise.count, *sample_shape] of a generator in evaluation mode.

    With a `truncation` latents are drawn from the normal cut off at +- this value (Brock et al. 2019, BigGAN,
    section 3.1); a generator that `truncates` by itself pulls its styles to their mean (StyleGAN2: psi).
    """
    latents = noise.normal(generator.latent_dim)  # type: ignore[arg-type]
    if truncation is not None and getattr(generator, "truncates", False):
        return generate_in_chunks(generator, latents, condition, truncation=truncation)
    if truncation is not None:
        latents = truncate(latents, truncation)
    return generate_in_chunks(generator, latents, condition)


@torch.no_grad()
def generate_in_chunks(
    generator: nn.Module, latents: Tensor, condition: Tensor | None = None, **options: float
) -> Tensor:
    """Samples [B, *sample_shape] in evaluation mode, in chunks; `options` go to the forward pass."""
    training = generator.training
    generator.eval()
    try:
        chunks = latents.split(CHUNK)
        conditions = [None] * len(chunks) if condition is None else condition.to(latents.device).split(CHUNK)
        pairs = zip(chunks, conditions, strict=True)
        return torch.cat([generator(*pair, **options) for pair in pairs]).float()
    finally:
        generator.train(training)


def choose_classes(
    classes: Tensor | Sequence[int] | None, first: int, count: int, num_classes: int
) -> Tensor | None:
    """Classes [count], int64, of samples `first` and following: those given or all, repeated as needed.

    None if there are no classes.

    Raises:
        ValueError: if one is not in 0 to num_classes - 1.
    """
    if classes is None:
        classes = range(num_classes)
    given = torch.as_tensor(list(classes), dtype=torch.int64)
    if not num_classes and len(given):
        raise ValueError(f"Classes {given.tolist()[:8]} are given to a GAN without classes: leave them out.")
    if not num_classes:
        return None
    if len(given) == 0 or given.min() < 0 or given.max() >= num_classes:
        raise ValueError(
            f"Classes {given.tolist()[:8]} are not all among the {num_classes} classes: "
            f"use 0 to {num_classes - 1}."
        )
    return given[torch.arange(first, first + count) % len(given)]


def truncate(latents: Tensor, threshold: float) -> Tensor:
    """Maps N(0, 1) onto the normal truncated at +-threshold, monotonically.

    Raises:
        ValueError: if `threshold` is not positive.
    """
    if threshold <= 0:
        raise ValueError(f"The truncation is {threshold}: give a positive threshold such as 0.7.")
    lowest = 0.5 * math.erfc(threshold / math.sqrt(2.0))
    uniform = torch.special.ndtr(latents.double())
    return torch.special.ndtri(lowest + uniform * (1.0 - 2.0 * lowest)).to(latents.dtype)


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Latents [steps, latent_dim] on the great circle from `start` to `end`, both [latent_dim].

    In high dimensions latents lie near a sphere, which a straight line leaves (White 2016, "Sampling
    Generative Networks", section 2.1). If both ends lie on one line through the origin, there is no unique
    great circle: the path is straight.
    """
    share = torch.linspace(0.0, 1.0, steps, device=start.device)[:, None]
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=0).clamp(-1.0, 1.0)
    angle = torch.acos(cosine)
    if torch.sin(angle).abs() < 1e-4:
        return torch.lerp(start, end, share)
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)
