"""pix2pix, Isola et al. 2017: a U-Net from image to image, and a discriminator of patches (PatchGAN)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from litgan.condition import Condition
from litgan.networks.layers import (
    SLOPE,
    Initialization,
    Norm,
    NormKind,
    check_image_condition,
    check_shape,
    check_widths,
    condition_channels,
    condition_maps,
    image_input,
    init_weights,
    pad_to_multiple,
    to_logits,
)

FILTER: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
DROPOUT_STAGES = 3  # of the decoder, from the innermost outwards; Isola et al., appendix 6.1.1


class UNetGenerator(nn.Module):
    """Images [B, C, H, W], the condition, to images [B, C', H, W] in (-1, 1); Isola et al. 2017, appendix.

    The encoder halves the sides once per width. The decoder doubles them as often, and gets the encoder's
    maps of the same sides beside its own. Any H and W will do: an image is padded to a multiple of
    2^len(widths) by its last row and column, and the output is cut to its size.

    The authors draw with dropout and the statistics of the test batch, and find little variety in that. Here
    dropout is active in training mode only, and a sample is a function of condition and latents alone, but
    for "batch". "instance" is batch norm as it acts in their batches of one image, in both modes.

    Args:
        sample_shape: [C', H, W].
        condition: [C, H, W], the shape of one condition.
        latent_dim: length of the latents (`layers.image_input`); 0 for none.
        widths: channels of each stage, from the image downwards.
        norm: "instance", "batch", "none" or another of `layers.Norm`; behind the innermost encoding there is
            none. "batch" in evaluation mode takes running statistics.
        dropout: its probability, in the three innermost stages of the decoder.
        initialization: "dcgan" (the paper's) or another of `layers.init_weights`.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition,
        *,
        latent_dim: int = 0,
        widths: Sequence[int] = (64, 128, 256, 512, 512, 512, 512, 512),
        norm: NormKind = "instance",
        dropout: float = 0.5,
        initialization: Initialization = "dcgan",
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self, least=1)
        self.condition = check_image_condition(sample_shape, condition, self)
        self.latent_dim, self.uses_batch_statistics = latent_dim, norm == "batch"
        first = nn.Conv2d(self.condition[0] + latent_dim, widths[0], **FILTER)
        self.encoder = nn.ModuleList([first])
        for inputs, outputs in pairwise(widths):
            innermost = len(self.encoder) == len(widths) - 1
            kind: NormKind = "none" if innermost else norm
            convolution = nn.Conv2d(inputs, outputs, **FILTER, bias=kind == "none")
            self.encoder.append(nn.Sequential(nn.LeakyReLU(SLOPE), convolution, Norm(kind, outputs)))
        self.decoder = nn.ModuleList()
        for inputs, outputs in pairwise(reversed(widths)):
            inputs *= 2 if len(self.decoder) else 1
            upsample = nn.ConvTranspose2d(inputs, outputs, **FILTER, bias=norm == "none")
            share = dropout if len(self.decoder) < DROPOUT_STAGES else 0.0
            self.decoder.append(nn.Sequential(nn.ReLU(), upsample, Norm(norm, outputs), nn.Dropout(share)))
        last = widths[0] * (2 if len(widths) > 1 else 1)
        self.head = nn.ConvTranspose2d(last, sample_shape[0], **FILTER)
        init_weights(self, initialization)

    @property
    def last_layer(self) -> Tensor:
        """The weights that make the image."""
        return self.head.weight

    def forward(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        given = image_input(self, latents, condition)
        height, width = given.shape[2:]
        maps = pad_to_multiple(given, 2 ** len(self.encoder))
        skips = []
        for stage in self.encoder:
            maps = stage(maps)
            skips.append(maps)
        skips.pop()
        for stage in self.decoder:
            maps = torch.cat([skips.pop(), stage(maps)], 1)
        return torch.tanh(self.head(torch.relu(maps)))[:, :, :height, :width]


class PatchDiscriminator(nn.Module):
    """PatchGAN, Isola et al. 2017, appendix 6.1.2: images [B, C, H, W] to logits [B, K], one a patch.

    Convolutions of kernel size 4 and stride 2, one for each width but the last, then two of stride 1. Patches
    overlap; four widths make them 70 x 70 pixels, two, three, five and six 16, 34, 142 and 286. Any H and W
    of at least 3 * 2^(len(widths) - 1) will do. Leaky ReLU follows each convolution but the last, the norm
    all but the first and the last. The condition is concatenated to the image (`layers.condition_maps`).

    Args:
        sample_shape: [C, H, W].
        condition: 0, n classes, or the shape of a vector or an image.
        widths: channels of each layer, from the image on.
        norm: "instance", "batch", "none" or another of `layers.Norm`. "instance" is batch norm as it acts in
            the authors' batches of one image. Gradient penalties do not work with "batch".
        reads_condition: false for a discriminator of samples alone, e.g. of an autoencoder, whose condition
            is the sample.
        initialization: "dcgan" (the paper's) or another of `layers.init_weights`.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition = 0,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        norm: NormKind = "instance",
        reads_condition: bool = True,
        initialization: Initialization = "dcgan",
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self, least=2)
        smallest = 3 * 2 ** (len(widths) - 1)
        if len(sample_shape) != 3 or min(sample_shape[1:]) < smallest:
            raise ValueError(
                f"PatchDiscriminator with {len(widths)} widths needs images [C, H, W] of {smallest} pixels a "
                f"side or more, but the samples' shape is {list(sample_shape)}: give fewer widths."
            )
        self.condition = condition if reads_condition else 0
        self.num_classes = self.condition if isinstance(self.condition, int) else 0
        self.sample_shape, self.uses_batch_statistics = tuple(sample_shape), norm == "batch"
        channels = sample_shape[0] + condition_channels(self.condition, self)
        self.layers = nn.ModuleList()
        for depth, (inputs, outputs) in enumerate(pairwise((channels, *widths))):
            kind: NormKind = norm if depth else "none"
            stride = 2 if depth < len(widths) - 1 else 1
            convolution = nn.Conv2d(inputs, outputs, 4, stride, padding=1, bias=kind == "none")
            self.layers.append(nn.Sequential(convolution, Norm(kind, outputs), nn.LeakyReLU(SLOPE)))
        self.head = nn.Conv2d(widths[-1], 1, 4, padding=1)
        init_weights(self, initialization)

    def features(self, samples: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """The maps of each layer but the last, first layer first."""
        check_shape(self, samples, (self.sample_shape[0], "H", "W"))
        maps = torch.cat([samples, *condition_maps(self, condition, samples.shape[0], samples.shape[2:])], 1)
        features = []
        for layer in self.layers:
            maps = layer(maps)
            features.append(maps)
        return features

    def forward(self, samples: Tensor, condition: Tensor | None = None) -> Tensor:
        return to_logits(self.head, self.features(samples, condition)[-1]).flatten(1)
