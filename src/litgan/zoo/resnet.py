"""Residual networks of SNGAN, Miyato et al. 2018, and their successors: projection, SAGAN, BigGAN.

The defaults are SNGAN for 32 x 32 (its appendix B.4, table 4); with classes they are the networks of
Miyato & Koyama 2018, "cGANs with projection discriminator". BigGAN (Brock et al. 2019, appendix B) is
`conditioning: shared, hierarchical: true, initialization: orthogonal, spectral_norm: true` and attention in
the generator, `wide: true, initialization: orthogonal` and attention in the discriminator.

Each entry of `widths` is a block that doubles or halves the side. All other layers keep the resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from litgan.networks.layers import (
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
    norm_layer,
)
from litgan.zoo.attention import SelfAttention, attention_index

Conditioning = Literal["norm", "shared"]


def upsample(maps: Tensor) -> Tensor:
    """Maps [B, C, R, R] to [B, C, 2R, 2R] by nearest-neighbor interpolation."""
    return interpolate(maps, scale_factor=2.0, mode="nearest")


class AdaptiveNorm(nn.Module):
    """Normalizes feature maps [B, C, H, W]; gains and biases are linear in a condition [B, D].

    Brock et al. 2019, section 3: one embedding of the class serves all norms of a network.

    Args:
        kind: As in `layers.Norm`.
        channels: C.
        condition: D.
    """

    def __init__(self, kind: NormKind, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = norm_layer(kind, channels, affine=False)
        self.gain = nn.Linear(condition, channels, bias=False)
        self.bias = nn.Linear(condition, channels, bias=False)

    def forward(self, maps: Tensor, condition: Tensor) -> Tensor:
        maps = self.norm(maps)
        gain, bias = 1 + self.gain(condition).to(maps.dtype), self.bias(condition).to(maps.dtype)
        return torch.addcmul(bias[:, :, None, None], maps, gain[:, :, None, None])


class GeneratorBlock(nn.Module):
    """Maps [B, inputs, R, R] to [B, outputs, 2R, 2R]; Miyato et al. 2018, appendix B.4.

    Norm, ReLU, upsampling, convolution, norm, ReLU, convolution; plus a 1 x 1 convolution of the input. The
    latter comes before its upsampling, with which it commutes, at a quarter of the cost. `norm(channels)`
    builds a norm.
    """

    def __init__(
        self, inputs: int, outputs: int, norm: Callable[[int], nn.Module], *, attention: bool
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList([norm(inputs), norm(outputs)])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, outputs, kernel_size=3, padding=1) for width in (inputs, outputs)
        )
        self.shortcut = nn.Conv2d(inputs, outputs, kernel_size=1)
        self.attention = SelfAttention(outputs) if attention else nn.Identity()

    def forward(self, maps: Tensor, condition: Tensor | None) -> Tensor:
        residual = self.convolutions[0](upsample(relu(self.norms[0](maps, condition))))
        residual = self.convolutions[1](relu(self.norms[1](residual, condition)))
        return self.attention(upsample(self.shortcut(maps)) + residual)


class DiscriminatorBlock(nn.Module):
    """Maps [B, inputs, R, R] to [B, outputs, R/2, R/2], or R if not `down`; Miyato et al. 2018, B.4.

    ReLU, convolution to `hidden` channels, ReLU, convolution, average pooling; plus the input, pooled, after
    a 1 x 1 convolution if shape or channels change. The `first` block has no ReLU on the image.
    """

    def __init__(
        self, inputs: int, hidden: int, outputs: int, *, down: bool, first: bool, attention: bool
    ) -> None:
        super().__init__()
        self.down, self.first = down, first
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, kernel_size=3, padding=1) for a, b in pairwise((inputs, hidden, outputs))
        )
        changes = down or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, kernel_size=1) if changes else nn.Identity()
        self.attention = SelfAttention(outputs) if attention else nn.Identity()

    def downsample(self, maps: Tensor) -> Tensor:
        return avg_pool2d(maps, 2) if self.down else maps

    def forward(self, maps: Tensor) -> Tensor:
        residual = self.convolutions[0](maps if self.first else relu(maps))
        residual = self.downsample(self.convolutions[1](relu(residual)))
        return self.attention(self.shortcut(self.downsample(maps)) + residual)


def init_residual_weights(network: nn.Module, scheme: Initialization) -> None:
    """`layers.init_weights`; "glorot" has gain sqrt(2) in the residual branches, as in the authors' code.

    The gain compensates for the ReLUs there, each of which halves the mean square.
    """
    init_weights(network, scheme)
    for block in network.modules():
        if isinstance(block, (GeneratorBlock, DiscriminatorBlock)) and scheme == "glorot":
            init_weights(block.convolutions, scheme, gain=2**0.5)


class ResNetGenerator(nn.Module):
    """Latents [B, latent_dim] to images [B, C, R, R] in (-1, 1).

    A linear layer outputs widths[0] maps at the base resolution R / 2^len(widths); each block doubles the
    side; norm, ReLU, a 3 x 3 convolution and tanh give the image.

    Args:
        sample_shape: [C, R, R], R a power of two.
        num_classes: 0 for an unconditional generator, which ignores labels.
        latent_dim: Length of the latents.
        widths: Output channels of each block, from the base resolution on.
        norm: "none", "batch" (the papers'), "group" or "pixel".
        conditioning: How the norms of the blocks get the class: "norm" has gains and biases for each class
            (Miyato & Koyama), "shared" has one embedding, of which all gains and biases are linear functions
            (BigGAN).
        embedding_dim: Length of the shared embedding.
        hierarchical: Split the latents into len(widths) + 1 equal chunks, one for the linear layer and one
            for the norms of each block, concatenated with the shared embedding (BigGAN).
        attention: Resolution of the maps after which self-attention is inserted (SAGAN), 0 for none.
        spectral_norm: Divide every weight matrix by its spectral norm, except embeddings (SAGAN).
        initialization: "glorot" (SNGAN), "orthogonal" (BigGAN), "dcgan" or "he", see `layers.init_weights`.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        latent_dim: int = 128,
        widths: Sequence[int] = (256, 256, 256),
        norm: NormKind = "batch",
        conditioning: Conditioning = "norm",
        embedding_dim: int = 128,
        hierarchical: bool = False,
        attention: int = 0,
        spectral_norm: bool = False,
        initialization: Initialization = "glorot",
    ) -> None:
        super().__init__()
        check_choice("conditioning", conditioning, Conditioning)
        widths = check_widths(widths, self)
        channels, base = image_geometry(sample_shape, widths, self)
        resolutions = [base << doublings for doublings in range(1, len(widths) + 1)]
        attention_depth = attention_index(attention, resolutions, self)
        self.num_classes, self.latent_dim = num_classes, latent_dim
        self.uses_batch_statistics = norm == "batch"
        self.base_shape = (widths[0], base, base)
        shared = num_classes > 0 and conditioning == "shared"
        if hierarchical and num_classes and not shared:
            raise ValueError(
                "ResNetGenerator concatenates hierarchical latents with the shared embedding: "
                "set conditioning to shared, or hierarchical to false."
            )
        self.chunks = chunk_sizes(latent_dim, len(widths), hierarchical)
        self.embed = nn.Embedding(num_classes, embedding_dim) if shared else None
        condition = self.chunks[1] + (embedding_dim if shared else 0)
        self.adaptive = condition > 0

        def block_norm(width: int) -> nn.Module:
            return AdaptiveNorm(norm, width, condition) if condition else Norm(norm, width, num_classes, 0.0)

        self.base = nn.Linear(self.chunks[0], widths[0] * base * base)
        self.blocks = nn.ModuleList(
            GeneratorBlock(a, b, block_norm, attention=depth == attention_depth)
            for depth, (a, b) in enumerate(pairwise((widths[0], *widths)))
        )
        self.norm = Norm(norm, widths[-1], gain_std=0.0)
        self.head = nn.Conv2d(widths[-1], channels, kernel_size=3, padding=1)
        init_residual_weights(self, initialization)
        if spectral_norm:
            add_spectral_norm(self, embeddings=False)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, latents, labels)
        first, *chunks = latents.split(self.chunks, dim=1)
        if self.embed is not None:
            embedded = self.embed(labels)
            chunks = [torch.cat([embedded, chunk], dim=1) for chunk in chunks]
        maps = self.base(first).unflatten(1, self.base_shape)
        for block, chunk in zip(self.blocks, chunks, strict=True):
            maps = block(maps, chunk if self.adaptive else labels)
        return torch.tanh(self.head(relu(self.norm(maps))))


def chunk_sizes(latent_dim: int, blocks: int, hierarchical: bool) -> list[int]:
    """Numbers of latents for the linear layer and each block; ValueError if there is no equal split."""
    if not hierarchical:
        return [latent_dim, *[0] * blocks]
    if latent_dim % (blocks + 1):
        raise ValueError(
            f"ResNetGenerator splits {latent_dim} latents into {blocks + 1} equal chunks, one for the linear "
            f"layer and one for each of the {blocks} widths: give a latent_dim that {blocks + 1} divides."
        )
    return [latent_dim // (blocks + 1)] * (blocks + 1)


class ResNetDiscriminator(nn.Module):
    """Images [B, C, R, R] to logits [B, 1]; conditional by projection (`layers.Projection`).

    Blocks that halve the side, blocks that keep it, ReLU, the sum over all positions, a linear layer.

    Args:
        sample_shape: [C, R, R], R a power of two.
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        widths: Output channels of each block that halves the side.
        flat_widths: Output channels of each block at the last resolution.
        wide: The first convolution of a block has as many output channels as the block (BigGAN), not as its
            input (SNGAN).
        attention: Resolution of the maps after which self-attention is inserted (SAGAN), 0 for none.
        spectral_norm: Divide every weight matrix by its spectral norm.
        initialization: "glorot" (SNGAN), "orthogonal" (BigGAN), "dcgan" or "he", see `layers.init_weights`.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        widths: Sequence[int] = (128, 128),
        flat_widths: Sequence[int] = (128, 128),
        wide: bool = False,
        attention: int = 0,
        spectral_norm: bool = True,
        initialization: Initialization = "glorot",
    ) -> None:
        super().__init__()
        widths, flat_widths = check_widths(widths, self), check_widths(flat_widths, self)
        channels, base = image_geometry(sample_shape, widths, self)
        resolutions = [base << halvings for halvings in reversed(range(len(widths)))]
        attention_depth = attention_index(attention, resolutions, self)
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        blocks = []
        for depth, (inputs, outputs) in enumerate(pairwise((channels, *widths, *flat_widths))):
            hidden = outputs if wide or depth == 0 else inputs
            down, has_attention = depth < len(widths), depth == attention_depth
            blocks += [
                DiscriminatorBlock(
                    inputs, hidden, outputs, down=down, first=depth == 0, attention=has_attention
                )
            ]
        self.blocks = nn.Sequential(*blocks)
        self.head = Projection((*widths, *flat_widths)[-1], num_classes)
        init_residual_weights(self, initialization)
        if spectral_norm:
            add_spectral_norm(self)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        return self.head(relu(self.blocks(samples)).sum((2, 3)), labels)
