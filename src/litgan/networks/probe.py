"""Builds networks and passes one sample through them: what does not fit is named in one sentence."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


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
