"""EDSR, Lim et al. 2017: from a small image to a large one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litgan.condition import Condition
from litgan.networks.layers import check_image_condition, image_input


class SuperResolver(nn.Module):
    """Images [B, C, H, W], the condition, to images [B, C', sH, sW], for any H and W; Lim et al. 2017, EDSR.

    SRResNet (Ledig et al. 2017) without batch norm: residual blocks at the small size, a convolution and a
    pixel shuffle (Shi et al. 2016) for each prime factor of s, and a last convolution. The output is linear.

    Args:
        sample_shape: [C', sH, sW].
        condition: [C, H, W]; s follows from both.
        latent_dim: length of the latents (`layers.image_input`); 0 for none.
        width: channels; 64 in the paper's baseline, 256 in its largest model.
        blocks: number of residual blocks; 16 and 32.
        residual_scale: factor on what a block adds; 1 and 0.1.

    Raises:
        ValueError: the sample's sides are not one multiple of the condition's, or a number is below 1; in
            `forward`, if latents or condition do not fit.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition,
        *,
        latent_dim: int = 0,
        width: int = 64,
        blocks: int = 16,
        residual_scale: float = 1.0,
    ) -> None:
        super().__init__()
        small = () if isinstance(condition, int) else tuple(condition)
        scale = sample_shape[1] // small[1] if len(small) == len(sample_shape) == 3 else 1
        self.condition = check_image_condition(sample_shape, condition, self, scale)
        if width < 1 or blocks < 1:
            raise ValueError(f"SuperResolver has width {width} and {blocks} blocks: give at least 1 of each.")
        self.latent_dim = latent_dim
        self.first = nn.Conv2d(self.condition[0] + latent_dim, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width, residual_scale) for _ in range(blocks))
        self.fusion = nn.Conv2d(width, width, 3, padding=1)
        self.upsample = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor))
            for factor in prime_factors(scale)
        )
        self.head = nn.Conv2d(width, sample_shape[0], 3, padding=1)

    @property
    def last_layer(self) -> Tensor:
        """The weights that make the image."""
        return self.head.weight

    def forward(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        first = maps = self.first(image_input(self, latents, condition))
        for block in self.blocks:
            maps = block(maps)
        maps = first + self.fusion(maps)
        for layer in self.upsample:
            maps = layer(maps)
        return self.head(maps)


class ResidualBlock(nn.Module):
    """Maps [B, C, H, W] plus `scale` times two convolutions of them."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.first, self.last = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.scale = scale

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.scale * self.last(torch.relu(self.first(maps)))


def prime_factors(number: int) -> list[int]:
    """Of a positive number, in ascending order, none for 1."""
    for factor in range(2, number + 1):
        if number % factor == 0:
            return [factor, *prime_factors(number // factor)]
    return []
