"""VQGAN's autoencoder, Esser et al. 2021: images to a grid of codes and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from litgan.condition import Condition
from litgan.networks.layers import (
    check_image_condition,
    check_widths,
    condition_maps,
    pad_to_multiple,
)
from litgan.networks.quantizers import Quantizer, VectorQuantizer, count_codes, perplexity_of

GROUPS, GROUP, EPS = 32, 4, 1e-6  # most groups of a group norm, fewest channels of one; its epsilon


class VQAutoencoder(nn.Module):
    """Images [B, C, H, W], the condition, through one code for each 2^(len(widths) - 1) pixels a side, back.

    The shape is VQGAN's: residual blocks with group norm and SiLU, strided convolutions down, nearest pixels
    and convolutions up, attention at the lowest resolution. The output is linear. Any H and W will do: an
    image is padded to a multiple of the factor by its last row and column, and the output is cut to its size.

    After a forward pass `auxiliary_loss` [B] is the quantizer's loss, which a `reconstruction` term adds to
    the generator's, `codes` [B, h, w] are the codes and `perplexity` how many of them were in use.

    Args:
        sample_shape: [C', H, W].
        condition: [C, H, W]; the image itself for a tokenizer.
        quantizer: called without arguments it returns a `litgan.networks.quantizers.Quantizer`.
        widths: channels of each resolution, from the image downwards; these are VQGAN's for 16 pixels a side.
        blocks: residual blocks of each resolution of the encoder; the decoder has one more.
        attention: whether there is any. Its time grows with the square of the number of codes.

    Raises:
        ValueError: the shapes are not those of images of one size, or an option is out of its range; in
            `forward`, if the condition does not fit.
    """

    uses_batch_statistics = False
    latent_dim = 0

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition,
        *,
        quantizer: Callable[[], Quantizer] = VectorQuantizer,
        widths: Sequence[int] = (128, 128, 256, 256, 512),
        blocks: int = 2,
        attention: bool = True,
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self, least=1)
        self.condition = check_image_condition(sample_shape, condition, self)
        if blocks < 1:
            raise ValueError(f"VQAutoencoder has {blocks} blocks: give 1 or more.")
        self.factor = 2 ** (len(widths) - 1)
        self.quantizer = quantizer()
        dim = self.quantizer.dim
        self.encoder = encoder(self.condition[0], dim, widths, blocks, attention)
        self.decoder = decoder(dim, sample_shape[0], widths, blocks + 1, attention)
        self.auxiliary_loss: Tensor | None = None
        self.codes: Tensor | None = None

    @property
    def last_layer(self) -> Tensor:
        """The weights that make the image."""
        return self.decoder[-1].weight  # type: ignore[return-value]

    @property
    def perplexity(self) -> Tensor:
        """exp(entropy) of the last forward pass's codes."""
        return perplexity_of(self.code_counts)[0]

    @property
    def code_counts(self) -> Tensor:
        """How often each code is among those of the last forward pass, [1, num_codes]."""
        assert self.codes is not None, "there was no forward pass"
        return count_codes(self.codes, self.quantizer.num_codes)[None]

    def forward(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        (images,) = condition_maps(self, condition, latents.shape[0])
        height, width = images.shape[2:]
        quantized, self.codes, self.auxiliary_loss = self._quantize(images)
        return self.decoder(quantized)[:, :, :height, :width]

    def encode(self, images: Tensor) -> Tensor:
        """Codes [B, h, w], int64, of images [B, C, H, W]."""
        return self._quantize(images)[1]

    def decode(self, codes: Tensor) -> Tensor:
        """Images [B, C', H, W] of codes [B, h, w], with H and W a multiple of the factor."""
        return self.decoder(self.quantizer.lookup(codes))

    def _quantize(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.quantizer(self.encoder(pad_to_multiple(images, self.factor)))

    def __getstate__(self) -> dict[str, Any]:
        """For copies: without the last pass, which belongs to a graph."""
        return {**self.__dict__, "auxiliary_loss": None, "codes": None}


def encoder(channels: int, dim: int, widths: Sequence[int], blocks: int, attention: bool) -> nn.Sequential:
    """Images [B, channels, H, W] to vectors [B, dim, h, w]."""
    layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1)]
    for level, (inputs, outputs) in enumerate(pairwise((widths[0], *widths)), start=1):
        lowest = level == len(widths)
        layers += stage(inputs, outputs, blocks, attention and lowest)
        if not lowest:
            layers += [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(outputs, outputs, 3, stride=2)]
    layers += [*middle(widths[-1], attention), *last(widths[-1], dim), nn.Conv2d(dim, dim, 1)]
    return nn.Sequential(*layers)


def decoder(dim: int, channels: int, widths: Sequence[int], blocks: int, attention: bool) -> nn.Sequential:
    """Vectors [B, dim, h, w] to images [B, channels, H, W]."""
    width = widths[-1]
    layers = [nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, width, 3, padding=1), *middle(width, attention)]
    for level, (inputs, outputs) in enumerate(pairwise((width, *reversed(widths))), start=1):
        layers += stage(inputs, outputs, blocks, attention and level == 1)
        if level < len(widths):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(outputs, outputs, 3, padding=1)]
    return nn.Sequential(*layers, *last(widths[0], channels))


def stage(inputs: int, outputs: int, blocks: int, attention: bool) -> list[nn.Module]:
    """Residual blocks at one resolution, each with attention behind it."""
    layers: list[nn.Module] = []
    for given in (inputs, *[outputs] * (blocks - 1)):
        layers += [ResidualBlock(given, outputs), *([Attention(outputs)] if attention else [])]
    return layers


def middle(width: int, attention: bool) -> list[nn.Module]:
    return [*stage(width, width, 1, attention), ResidualBlock(width, width)]


def last(width: int, outputs: int) -> list[nn.Module]:
    return [group_norm(width), nn.SiLU(), nn.Conv2d(width, outputs, 3, padding=1)]


def group_norm(channels: int) -> nn.GroupNorm:
    """Of 32 groups, fewer if the channels are few."""
    return nn.GroupNorm(math.gcd(channels, min(GROUPS, max(1, channels // GROUP))), channels, eps=EPS)


class ResidualBlock(nn.Module):
    """Maps [B, inputs, H, W] plus two convolutions of them, [B, outputs, H, W]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            group_norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1),
            group_norm(outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1),
        )  # fmt: skip
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps) + self.shortcut(maps)


class Attention(nn.Module):
    """Maps [B, C, H, W] plus the attention of each position to all, with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.parts = group_norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        parts = (
            self.parts(self.norm(maps)).flatten(2).transpose(1, 2)[:, None]
        )  # [B, 1, HW, 3C]: ONNX wants 4
        attended = F.scaled_dot_product_attention(*parts.chunk(3, dim=3))
        return maps + self.project(attended[:, 0].transpose(1, 2).unflatten(2, maps.shape[2:]))
