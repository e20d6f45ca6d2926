"""Drawing from a generator: latents, truncation, interpolation, and what a generator must honour."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from litgan.noise import Noise

CHUNK = 250  # samples a forward pass


def make_network(
    role: str, factory: Callable[..., nn.Module], sample_shape: tuple[int, ...], num_classes: int
) -> nn.Module:
    """The network that `factory` makes of the data's shape and number of classes.

    Raises:
        ValueError: one sentence that names the network, if it cannot be made so.
    """
    try:
        network = factory(sample_shape, num_classes)
    except (TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"The {role} cannot be made from (sample_shape, num_classes) = {sample_shape, num_classes} "
            f"({reason}): give a network whose constructor takes these two first."
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"The {role} is a {type(network).__name__}: give a class of networks (nn.Module).")
    return network


def check_networks(
    generator: nn.Module, discriminator: nn.Module, sample_shape: tuple[int, ...], num_classes: int
) -> None:
    """Passes one sample through both networks.

    Raises:
        ValueError: one sentence that names the network and what does not fit.
    """
    latent_dim = getattr(generator, "latent_dim", None)
    if not isinstance(latent_dim, int):
        raise ValueError(f"{type(generator).__name__} has no integer attribute latent_dim: add one.")
    device = next(generator.parameters()).device
    labels = torch.full((1,), num_classes - 1, device=device) if num_classes else None
    latents = torch.zeros(1, latent_dim, device=device)
    samples = _forward(generator, latents, labels, f"latents and labels of {num_classes} classes")
    if samples.shape[1:] != sample_shape:
        raise ValueError(
            f"{type(generator).__name__} makes samples of shape {tuple(samples.shape[1:])} but the data's "
            f"have {sample_shape}: change the network's widths or the data's resolution and channels."
        )
    wanted = f"samples of shape {sample_shape} and labels of {num_classes} classes"
    logits = _forward(discriminator, torch.zeros(1, *sample_shape, device=device), labels, wanted)
    if logits.ndim != 2:
        raise ValueError(
            f"{type(discriminator).__name__} returns logits of shape {tuple(logits.shape)}: make it [B, K]."
        )


@torch.no_grad()
def _forward(network: nn.Module, first: Tensor, labels: Tensor | None, wanted: str) -> Tensor:
    training = network.training
    try:
        return network.eval()(first, labels)
    except (RuntimeError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{type(network).__name__} does not fit {wanted}: {reason}.") from error
    finally:
        network.train(training)


@torch.no_grad()
def draw_samples(
    generator: nn.Module,
    noise: Noise,
    labels: Tensor | Sequence[int] | None = None,
    *,
    num_classes: int = 0,
    truncation: float | None = None,
) -> Tensor:
    """Samples [noise.count, *sample_shape] of `generator` in evaluation mode, chunk by chunk.

    A generator with the attribute `truncates` takes the truncation itself (StyleGAN2: psi); for another the
    latents are truncated.
    """
    latents, options = noise.normal(generator.latent_dim), {}  # type: ignore[arg-type]
    if truncation is not None and getattr(generator, "truncates", False):
        options = {"truncation": truncation}
    elif truncation is not None:
        latents = truncate(latents, truncation)
    labels = choose_labels(labels, noise.first, noise.count, num_classes)
    return generate(generator, latents, labels, **options)


@torch.no_grad()
def generate(generator: nn.Module, latents: Tensor, labels: Tensor | None = None, **options: float) -> Tensor:
    """Samples of `generator` in evaluation mode for given latents and labels, chunk by chunk.

    `options` go to its forward pass.
    """
    training = generator.training
    generator.eval()
    try:
        chunks = latents.split(CHUNK)
        of_chunk = [None] * len(chunks) if labels is None else labels.to(latents.device).split(CHUNK)
        return torch.cat([generator(z, y, **options) for z, y in zip(chunks, of_chunk, strict=True)]).float()
    finally:
        generator.train(training)


def choose_labels(
    labels: Tensor | Sequence[int] | None, first: int, count: int, num_classes: int
) -> Tensor | None:
    """Labels [count]: those given, repeated as needed, or all classes in turn; None without classes.

    Raises:
        ValueError: if a label is not a class.
    """
    if labels is None:
        labels = range(num_classes)
    given = torch.as_tensor(list(labels), dtype=torch.int64)
    if not num_classes and len(given):
        raise ValueError(f"Labels {given.tolist()[:8]} are given to a GAN without classes: leave them out.")
    if not num_classes:
        return None
    if len(given) == 0 or given.min() < 0 or given.max() >= num_classes:
        raise ValueError(
            f"Labels {given.tolist()[:8]} are not all among the {num_classes} classes: "
            f"use 0 to {num_classes - 1}."
        )
    return given[torch.arange(first, first + count) % len(given)]


def truncate(latents: Tensor, threshold: float) -> Tensor:
    """Maps N(0, 1) onto the normal truncated at +-threshold, monotonically, so neighbours stay neighbours.

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

    Spherical, for in high dimensions the straight line leaves the shell that the generator knows
    (White 2016, "Sampling Generative Networks", section 2.1). Ends on one line through the origin,
    where no single great circle leads from one to the other, are joined straight.
    """
    share = torch.linspace(0.0, 1.0, steps, device=start.device)[:, None]
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=0).clamp(-1.0, 1.0)
    angle = torch.acos(cosine)
    if torch.sin(angle).abs() < 1e-4:
        return torch.lerp(start, end, share)
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)
