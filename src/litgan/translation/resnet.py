"""CycleGAN's generator, Zhu et al. 2017: residual blocks at a quarter of the resolution."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from litgan.condition import Condition
from litgan.networks.layers import (
    Initialization,
    check_image_condition,
    check_widths,
    image_input,
    init_weights,
    pad_to_multiple,
)


class ResNetTranslator(nn.Module):
    """Images [B, C, H, W], the condition, to images [B, C', H, W] in (-1, 1); Zhu et al. 2017, appendix 7.2.

    A 7 x 7 convolution, one of stride 2 for each further width, residual blocks, as many transposed
    convolutions, a 7 x 7 convolution. Instance norm without gains follows all but the last. Layers that keep
    the size pad by reflection. Any H and W will do: an image is padded to a multiple of 2^(len(widths) - 1)
    by its last row and column, and the output is cut to its size.

    Args:
        sample_shape: [C', H, W].
        condition: [C, H, W], the shape of one condition.
        latent_dim: length of the latents (`layers.image_input`); 0 for none.
        widths: channels of each resolution, from the image downwards.
        blocks: number of residual blocks: in the paper 9 for 256 x 256 pixels and more, 6 for 128 x 128.
        initialization: "dcgan" (the paper's) or another of `layers.init_weights`.

    Raises:
        ValueError: the shapes are not those of images of one size, or too small, or an option is unknown; in
            `forward`, if latents or condition do not fit.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition,
        *,
        latent_dim: int = 0,
        widths: Sequence[int] = (64, 128, 256),
        blocks: int = 9,
        initialization: Initialization = "dcgan",
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self, least=1)
        self.condition = check_image_condition(sample_shape, condition, self)
        self.latent_dim, self.factor = latent_dim, 2 ** (len(widths) - 1)
        smallest = max(self.factor + 1, 4)
        if min(sample_shape[1:]) < smallest:
            raise ValueError(
                f"ResNetTranslator with {len(widths)} widths needs images of {smallest} pixels a side or "
                f"more, but the samples' shape is {list(sample_shape)}: give fewer widths."
            )
        channels = self.condition[0] + latent_dim
        self.encoder = nn.ModuleList([nn.Sequential(*reflected(channels, widths[0], 7), nn.ReLU())])
        for inputs, outputs in pairwise(widths):
            downsample = nn.Conv2d(inputs, outputs, 3, 2, padding=1, bias=False)
            self.encoder.append(nn.Sequential(downsample, nn.InstanceNorm2d(outputs), nn.ReLU()))
        self.blocks = nn.ModuleList(ResidualBlock(widths[-1]) for _ in range(blocks))
        self.decoder = nn.ModuleList()
        for inputs, outputs in pairwise(reversed(widths)):
            upsample = nn.ConvTranspose2d(inputs, outputs, 3, 2, padding=1, output_padding=1, bias=False)
            self.decoder.append(nn.Sequential(upsample, nn.InstanceNorm2d(outputs), nn.ReLU()))
        self.head = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(widths[0], sample_shape[0], 7))
        init_weights(self, initialization)

    @property
    def last_layer(self) -> Tensor:
        """The weights that make the image."""
        return self.head[-1].weight  # type: ignore[return-value]

    def forward(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        maps = image_input(self, latents, condition)
        height, width = maps.shape[2:]
        maps = pad_to_multiple(maps, self.factor)
        for layer in (*self.encoder, *self.blocks, *self.decoder):
            maps = layer(maps)
        return torch.tanh(self.head(maps))[:, :, :height, :width]


def reflected(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """A convolution padded by reflection, and instance norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, bias=False)
    return [nn.ReflectionPad2d(kernel // 2), convolution, nn.InstanceNorm2d(outputs)]


class ResidualBlock(nn.Module):
    """Maps [B, C, H, W] plus two convolutions of them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, last = (reflected(channels, channels, 3) for _ in range(2))
        self.layers = nn.Sequential(*first, nn.ReLU(), *last)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.layers(maps)
