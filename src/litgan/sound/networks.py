"""Networks on waveforms: WaveGAN.

A sample is [channels, length]. Each entry of `widths` is one layer that changes the length by a factor of
four: with five widths a base length of 16 becomes 16,384 samples, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from litgan.networks.layers import (
    SLOPE,
    Initialization,
    Projection,
    check_input,
    check_widths,
    init_weights,
)

STRIDE = 4
FILTER: dict[str, Any] = {"kernel_size": 25, "stride": STRIDE, "padding": 11}  # Donahue et al., table 3


def base_length(sample_shape: Sequence[int], widths: Sequence[int], owner: nn.Module) -> tuple[int, int]:
    """Channels C and base length T / 4^len(widths) of the sample shape [C, T].

    Raises:
        ValueError: `sample_shape` is not [C, T] with T a multiple of 4^len(widths), or `widths` is empty.
    """
    if len(sample_shape) != 2 or not widths or sample_shape[1] % STRIDE ** len(widths):
        raise ValueError(
            f"{type(owner).__name__} needs sounds [C, T] whose length T is a multiple of 4^len(widths) "
            f"({len(widths)} widths, at least 1), but the samples' shape is {list(sample_shape)}: "
            "change widths, or data.length."
        )
    return sample_shape[0], sample_shape[1] // STRIDE ** len(widths)


class WaveGANGenerator(nn.Module):
    """WaveGAN of Donahue et al. 2019, table 3: latents [B, latent_dim] to sounds [B, C, T] in (-1, 1).

    A linear layer gives widths[0] channels at the base length T / 4^len(widths). Transposed convolutions of
    kernel size 25 and stride 4 follow, one for each further width and a last one for the wave.

    Args:
        sample_shape: [C, T]; the paper's T are 16,384 and 65,536.
        num_classes: 0 for an unconditional generator, which ignores labels; else a learned embedding of
            size `latent_dim` is concatenated to the latents.
        latent_dim: Dimension of the latents.
        widths: Channels of each stage, from the base length upwards; the paper's are 1024, 512, 256, 128, 64.
        initialization: "he" or another of `layers.init_weights`.

    Raises:
        ValueError: The length does not fit the widths, or an option is unknown; in `forward`, as
            `layers.check_input`.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        latent_dim: int = 100,
        widths: Sequence[int] = (256, 128, 64, 32, 16),
        initialization: Initialization = "he",
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self)
        channels, base = base_length(sample_shape, widths, self)
        self.num_classes, self.latent_dim, self.base_shape = num_classes, latent_dim, (widths[0], base)
        self.embed = nn.Embedding(num_classes, latent_dim) if num_classes else None
        self.base = nn.Linear(2 * latent_dim if num_classes else latent_dim, widths[0] * base)
        self.stages = nn.ModuleList(
            nn.ConvTranspose1d(a, b, **FILTER, output_padding=1) for a, b in pairwise((*widths, channels))
        )
        init_weights(self, initialization)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, latents, labels)
        if self.embed is not None:
            latents = torch.cat([latents, self.embed(labels)], dim=1)
        maps = self.base(latents).unflatten(1, self.base_shape)
        for stage in self.stages:
            maps = stage(torch.relu(maps))
        return torch.tanh(maps)


class PhaseShuffle(nn.Module):
    """Shifts each sample's maps [B, C, T] in time by -max_shift to max_shift, in training mode only.

    Donahue et al. 2019, section 3.3: it keeps the discriminator from using the phase of the artifacts that
    transposed convolutions leave at a fixed period. Gaps are filled by reflection. The shifts come from
    torch's global random generator, which litgan seeds before each step.
    """

    def __init__(self, max_shift: int) -> None:
        super().__init__()
        self.max_shift = max_shift

    def forward(self, maps: Tensor) -> Tensor:
        if not self.training or not self.max_shift:
            return maps
        batch, channels, length = maps.shape
        shifts = torch.randint(-self.max_shift, self.max_shift + 1, (batch, 1, 1), device=maps.device)
        source = torch.arange(length, device=maps.device) + shifts
        source = (length - 1) - (source.abs() - (length - 1)).abs()
        return maps.gather(2, source.expand(-1, channels, -1))


class WaveGANDiscriminator(nn.Module):
    """WaveGAN's discriminator, Donahue et al. 2019, table 4: sounds [B, C, T] to logits [B, 1].

    One convolution of kernel size 25 and stride 4 for each width, then one linear layer; conditional by
    projection (`layers.Projection`). Leaky ReLU follows each convolution, phase shuffle each but the last.

    Args:
        sample_shape: [C, T].
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        widths: Channels of each stage, from the waveform to the base length.
        phase_shuffle: Largest shift of phase shuffle; 0 for none, 2 in the paper.
        initialization: "he" or another of `layers.init_weights`.

    Raises:
        ValueError: The length does not fit the widths, or an option is unknown; in `forward`, as
            `layers.check_input`.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        widths: Sequence[int] = (16, 32, 64, 128, 256),
        phase_shuffle: int = 2,
        initialization: Initialization = "he",
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self)
        channels, base = base_length(sample_shape, widths, self)
        if not 0 <= phase_shuffle < STRIDE * base:
            raise ValueError(
                f"WaveGANDiscriminator cannot shuffle phases by {phase_shuffle}: "
                f"give 0 to {STRIDE * base - 1}."
            )
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((channels, *widths)):
            layers += [nn.Conv1d(inputs, outputs, **FILTER), nn.LeakyReLU(SLOPE), PhaseShuffle(phase_shuffle)]
        self.backbone = nn.Sequential(*layers[:-1])
        self.head = Projection(widths[-1] * base, num_classes)
        init_weights(self, initialization)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        return self.head(self.backbone(samples).flatten(1), labels)
