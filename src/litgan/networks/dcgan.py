"""DCGAN, Radford et al. 2016: strided convolutions, at any resolution that is a power of two.

One entry of `widths` is one factor of two: three widths take a 4 x 4 base to a 32 x 32 image, or an
8 x 8 base to 64 x 64.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from litgan.networks.layers import (
    SLOPE,
    Initialization,
    Norm,
    NormKind,
    Projection,
    add_spectral_norm,
    check_choice,
    check_input,
    check_widths,
    image_geometry,
    init_weights,
)

Conditioning = Literal["norm", "concatenation"]
Upsample = Literal["transposed", "nearest"]


def has_bias(norm: NormKind) -> bool:
    """Whether a layer in front of this norm needs a bias: the other kinds subtract it and add their own."""
    return norm in ("none", "pixel")


def upsample_layer(inputs: int, outputs: int, kind: Upsample, *, bias: bool) -> nn.Module:
    """A layer [B, inputs, R, R] -> [B, outputs, 2R, 2R]."""
    check_choice("upsample", kind, Upsample)
    if kind == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=bias)
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=bias)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), convolution)


class DCGANGenerator(nn.Module):
    """Latents [B, latent_dim] to images [B, C, R, R] in (-1, 1).

    A linear layer gives widths[0] maps at the base resolution R / 2^len(widths); each further width
    doubles the side, and a last upsampling layer gives the image. Norm and ReLU follow all layers but the
    last.

    Args:
        sample_shape: [C, R, R], R a power of two.
        num_classes: 0 for an unconditional generator, which ignores labels.
        latent_dim: Length of the latents.
        widths: Channels of each stage, from the base upwards.
        norm: "none", "batch" (the paper's), "group" or "pixel".
        conditioning: Where the class enters: "norm" gives each class its own gains and biases (de Vries
            et al. 2017), "concatenation" appends a learned embedding, as long as the latents, to them.
        upsample: "transposed" is the paper's 4 x 4 convolution; "nearest" repeats pixels, then convolves
            3 x 3: no checkerboard (Odena et al. 2016), 2.25 times the arithmetic.
        initialization: "dcgan" or "he", see `layers.init_weights`.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        latent_dim: int = 128,
        widths: Sequence[int] = (256, 128, 64),
        norm: NormKind = "batch",
        conditioning: Conditioning = "norm",
        upsample: Upsample = "transposed",
        initialization: Initialization = "dcgan",
    ) -> None:
        super().__init__()
        check_choice("conditioning", conditioning, Conditioning)
        widths = check_widths(widths, self)
        channels, base = image_geometry(sample_shape, widths, self)
        self.num_classes, self.latent_dim = num_classes, latent_dim
        self.uses_batch_statistics = norm == "batch"
        self.base_shape = (widths[0], base, base)
        concatenated = num_classes > 0 and conditioning == "concatenation"
        self.embed = nn.Embedding(num_classes, latent_dim) if concatenated else None
        norm_classes = 0 if concatenated else num_classes

        inputs = 2 * latent_dim if concatenated else latent_dim
        bias = has_bias(norm)
        self.base = nn.Linear(inputs, widths[0] * base * base, bias=bias)
        self.stages = nn.ModuleList(upsample_layer(a, b, upsample, bias=bias) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(Norm(norm, width, norm_classes) for width in widths)
        self.head = upsample_layer(widths[-1], channels, upsample, bias=True)
        init_weights(self, initialization)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, latents, labels)
        if self.embed is not None:
            latents = torch.cat([latents, self.embed(labels)], dim=1)
        maps = self.base(latents).unflatten(1, self.base_shape)
        maps = torch.relu(self.norms[0](maps, labels))
        for stage, norm in zip(self.stages, self.norms[1:], strict=True):
            maps = torch.relu(norm(stage(maps), labels))
        return torch.tanh(self.head(maps))


class DCGANDiscriminator(nn.Module):
    """Images [B, C, R, R] to logits [B, 1]; conditional by projection (`layers.Projection`).

    A 4 x 4 convolution of stride 2 per width halves the side; a linear layer follows. Leaky ReLU follows
    each convolution, the norm all but the first, as in the paper. Gradient penalties do not work with
    `uses_batch_statistics`: a logit then depends on several samples.

    Args:
        sample_shape: [C, R, R], R a power of two.
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        widths: Channels of each stage, from the image downwards.
        norm: "none", "batch" (the paper's), "group" or "pixel".
        spectral_norm: Every weight matrix divided by its spectral norm.
        initialization: "dcgan" or "he", see `layers.init_weights`.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        widths: Sequence[int] = (64, 128, 256),
        norm: NormKind = "none",
        spectral_norm: bool = False,
        initialization: Initialization = "dcgan",
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self)
        channels, base = image_geometry(sample_shape, widths, self)
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        self.uses_batch_statistics = norm == "batch" and len(widths) > 1
        layers: list[nn.Module] = []
        for depth, (inputs, outputs) in enumerate(zip((channels, *widths), widths, strict=False)):
            kind: NormKind = norm if depth else "none"
            layers += [nn.Conv2d(inputs, outputs, kernel_size=4, stride=2, padding=1, bias=has_bias(kind))]
            layers += [Norm(kind, outputs), nn.LeakyReLU(SLOPE)]
        self.backbone = nn.Sequential(*layers)
        self.head = Projection(widths[-1] * base * base, num_classes)
        init_weights(self, initialization)
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        return self.head(self.backbone(samples).flatten(1), labels)
