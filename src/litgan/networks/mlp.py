"""Multilayer perceptrons for points and any other small samples, as in Goodfellow et al. 2014."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from litgan.networks.layers import (
    Activation,
    Projection,
    activation,
    add_spectral_norm,
    check_choice,
    check_input,
    check_widths,
    init_weights,
)

Output = Literal["tanh", "linear"]


def hidden_layers(inputs: int, widths: Sequence[int], kind: Activation) -> nn.Sequential:
    """Linear layers of `widths`, each followed by its activation."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), activation(kind)]
        inputs = width
    return nn.Sequential(*layers)


class MLPGenerator(nn.Module):
    """Latents [B, latent_dim] to samples [B, *sample_shape].

    Conditional: a learned embedding of the class, as long as the latents, is concatenated to them
    (Mirza & Osindero 2014, figure 1).

    Args:
        sample_shape: Shape of one sample, of any rank.
        num_classes: 0 for an unconditional generator, which ignores labels.
        latent_dim: Length of the latents.
        widths: Width of each hidden layer.
        activation: After each hidden layer.
        output: "tanh" keeps samples in (-1, 1); "linear" leaves them unbounded.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        latent_dim: int = 64,
        widths: Sequence[int] = (128, 128),
        activation: Activation = "leaky_relu",
        output: Output = "tanh",
    ) -> None:
        super().__init__()
        check_choice("output", output, Output)
        widths = check_widths(widths, self)
        self.sample_shape, self.num_classes, self.latent_dim = tuple(sample_shape), num_classes, latent_dim
        self.embed = nn.Embedding(num_classes, latent_dim) if num_classes else None
        inputs = 2 * latent_dim if num_classes else latent_dim
        self.backbone = hidden_layers(inputs, widths, activation)
        self.head = nn.Linear((inputs, *widths)[-1], math.prod(self.sample_shape))
        self.squash = nn.Tanh() if output == "tanh" else nn.Identity()
        init_weights(self, "he")

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, latents, labels)
        if self.embed is not None:
            latents = torch.cat([latents, self.embed(labels)], dim=1)
        return self.squash(self.head(self.backbone(latents))).unflatten(1, self.sample_shape)


class MLPDiscriminator(nn.Module):
    """Samples [B, *sample_shape] to logits [B, 1]; conditional by projection (`layers.Projection`).

    Args:
        sample_shape: Shape of one sample, of any rank.
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        widths: Width of each hidden layer; none makes a linear critic.
        activation: After each hidden layer.
        spectral_norm: Every weight matrix divided by its spectral norm.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        widths: Sequence[int] = (128, 128),
        activation: Activation = "leaky_relu",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self)
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        size = math.prod(self.sample_shape)
        self.backbone = hidden_layers(size, widths, activation)
        self.head = Projection((size, *widths)[-1], num_classes)
        init_weights(self, "he")
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        return self.head(self.backbone(samples.flatten(1)), labels)
