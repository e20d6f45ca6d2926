"""Drawing from a generator: chunks, truncation, interpolation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from litgan.memory import AutoBatchSize
from litgan.noise import Noise

CHUNK = 250  # samples a forward pass, at most


class Sampler(nn.Module):
    """A generator for sampling: in evaluation mode, in chunks, with truncated latents.

    With a `truncation` latents are drawn from the normal cut off at +- this value (Brock et al. 2019, BigGAN,
    section 3.1); a generator that `truncates` by itself pulls its styles to their mean (StyleGAN2: psi).
    A generator that `draws_noise` beside the latents gets the samples' random numbers, `noise`.
    """

    def __init__(
        self, generator: nn.Module, truncation: float | None = None, noise: Noise | None = None
    ) -> None:
        super().__init__()
        self.generator, self.latent_dim, self.options = generator, generator.latent_dim, {}
        self.truncation = None if getattr(generator, "truncates", False) else truncation
        if truncation is not None and self.truncation is None:
            self.options = {"truncation": truncation}
        self.noise = noise if getattr(generator, "draws_noise", False) else None

    def forward(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.truncation is not None:
            latents = truncate(latents, self.truncation)
        return generate_in_chunks(self.generator, latents, condition, noise=self.noise, **self.options)


def averaged_generator(gan: Any, ema: bool | int = True) -> nn.Module:
    """A GAN's generator with averaged weights: the run's average, or that with a half-life in images.

    Raises ValueError if there is no average with that half-life.
    """
    if isinstance(ema, bool):
        return gan.ema.average if ema else gan.generator
    if str(ema) not in gan.extra_emas:
        known = ", ".join(gan.extra_emas) or "none: train with model.extra_ema_halflives"
        raise ValueError(f"There is no average of half-life {ema}; there are {known}.")
    return gan.extra_emas[str(ema)].average


@contextmanager
def eval_mode(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode in here; afterwards every submodule has its own mode again."""
    modes = [(part, part.training) for network in networks for part in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def sampling_with(gan: Any, generator: nn.Module) -> Iterator[None]:
    """In here another generator stands for the GAN's, and all its networks are in evaluation mode."""
    own = gan.generator
    with eval_mode(gan):
        gan.generator = generator
        try:
            yield
        finally:
            gan.generator = own


@torch.no_grad()
def generate_in_chunks(
    generator: nn.Module, latents: Tensor, condition: Tensor | None = None, *, noise: Noise | None = None,
    **options: Any,
) -> Tensor:  # fmt: skip
    """Samples [B, *sample_shape] in evaluation mode, in chunks; `options` go to the forward pass.

    So does each chunk's part of `noise`, the random numbers of these B samples. Chunks that are too large
    for the memory are halved.
    """
    condition = None if condition is None else condition.to(latents.device)

    def chunk(start: int, size: int) -> Tensor:
        rows = slice(start, start + size)
        if noise is not None:
            options["noise"] = replace(noise, first=noise.first + start, count=size)
        return generator(latents[rows], None if condition is None else condition[rows], **options)

    with eval_mode(generator):
        return AutoBatchSize(CHUNK)(chunk, len(latents)).float()


def truncate(latents: Tensor, threshold: float) -> Tensor:
    """Maps N(0, 1) onto the normal truncated at +-threshold, monotonically.

    Raises ValueError if `threshold` is not positive.
    """
    if threshold <= 0:
        raise ValueError(f"The truncation is {threshold}: give a positive threshold such as 0.7.")
    lowest = 0.5 * math.erfc(threshold / math.sqrt(2.0))
    uniform = torch.special.ndtr(latents.cpu().double())  # Metal has neither float64 nor ndtri
    return torch.special.ndtri(lowest + uniform * (1.0 - 2.0 * lowest)).to(latents)


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
