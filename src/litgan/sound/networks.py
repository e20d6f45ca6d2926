"""Networks on waveforms: WaveGAN, and HiFi-GAN's discriminator.

A sample is [channels, length]. Each entry of `widths` is one layer that changes the length by a factor of
four: with five widths a base length of 16 becomes 16,384 samples, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

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


class HiFiGANDiscriminator(nn.Module):
    """The discriminators of HiFi-GAN, Kong et al. 2020, section 2.3: sounds [B, 1, T] to logits [B, K].

    For each period p one discriminator gets the wave folded to [T / p, p]. For each scale one gets the wave
    itself, average-pooled by two for each scale after the first. All positions of the last maps of all of
    them are the K logits. Weights are normalized by weight normalization (Salimans & Kingma 2016), those of
    the first scale by spectral normalization.

    Args:
        sample_shape: [1, T].
        num_classes: 0 for an unconditional discriminator; else projection at each position.
        periods: Of the multi-period discriminator, without common factors; the paper's are 2, 3, 5, 7, 11.
        scales: Number of scales of the multi-scale discriminator; 3 in the paper.
        widths: Channels of the layers of each; the paper's are 32 to 1024 for periods and 128 to 1024 for
            scales, the latter with two more layers and grouped convolutions.

    Raises:
        ValueError: `sample_shape` is not [1, T] or T is too small, or there is neither a period nor a scale.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        scales: int = 3,
        widths: Sequence[int] = (16, 32, 64, 128),
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self)
        if len(sample_shape) != 2 or sample_shape[0] != 1 or sample_shape[1] >> scales < max((*periods, 2)):
            raise ValueError(
                f"HiFiGANDiscriminator needs sounds [1, T] long enough for periods {list(periods)} and "
                f"{scales} scales, but the samples' shape is {list(sample_shape)}: change either."
            )
        if not widths or min((*periods, 1)) < 1 or scales < 0 or not (periods or scales):
            raise ValueError(
                f"HiFiGANDiscriminator has periods {list(periods)}, {scales} scales and widths "
                f"{list(widths)}: give periods of at least 1 or a positive number of scales, and one width "
                "or more."
            )
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        self.periods = tuple(periods)
        self.period_discriminators = nn.ModuleList(
            SubDiscriminator(num_classes, widths, kernel=5, stride=3) for _ in periods
        )
        self.scale_discriminators = nn.ModuleList(
            SubDiscriminator(num_classes, widths, kernel=15, stride=4) for _ in range(scales)
        )
        for index, discriminator in enumerate((*self.scale_discriminators, *self.period_discriminators)):
            discriminator.normalize_weights(spectral=index == 0 and scales > 0)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        logits = []
        for period, discriminator in zip(self.periods, self.period_discriminators, strict=True):
            padded = F.pad(samples, (0, -samples.shape[-1] % period), mode="reflect")
            logits.append(discriminator(padded.unflatten(2, (-1, period)), labels))
        for discriminator in self.scale_discriminators:
            logits.append(discriminator(samples[..., None], labels))
            samples = F.avg_pool1d(samples, 4, stride=2, padding=2)
        return torch.cat(logits, dim=1)


class SubDiscriminator(nn.Module):
    """Maps [B, 1, H, W] to logits [B, K] by convolutions along H only: columns stay independent."""

    def __init__(self, num_classes: int, widths: Sequence[int], kernel: int, stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise((1, *widths)):
            layers += [
                nn.Conv2d(inputs, outputs, (kernel, 1), (stride, 1), (kernel // 2, 0)),
                nn.LeakyReLU(SLOPE),
            ]
        self.backbone = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))
        self.embed = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        init_weights(self, "he")
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, 0.0, widths[-1] ** -0.5)

    def normalize_weights(self, *, spectral: bool) -> None:
        """Adds spectral normalization to each convolution, or weight normalization if not `spectral`."""
        norm = parametrizations.spectral_norm if spectral else parametrizations.weight_norm
        for layer in list(self.modules()):
            if isinstance(layer, nn.Conv2d):
                norm(layer)

    def forward(self, maps: Tensor, labels: Tensor | None) -> Tensor:
        features = self.backbone(maps)
        logits = self.head(features)
        if self.embed is not None:
            logits = logits + (self.embed(labels)[:, :, None, None] * features).sum(1, keepdim=True)
        return logits.flatten(1)
