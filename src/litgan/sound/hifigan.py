"""HiFi-GAN, Kong et al. 2020: a vocoder from mel spectrograms to waves, and its discriminators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from litgan.networks.layers import (
    CONVOLUTIONS,
    Condition,
    check_input,
    check_shape,
    check_widths,
    spectral_norm,
    to_logits,
)

SLOPE = 0.1  # of leaky ReLU below zero
LAST_SLOPE = 0.01  # before the generator's last layer: PyTorch's default, as in the authors' code
PERIOD_KERNEL, PERIOD_STRIDE = 5, 3  # of the layers of a period; the last one has stride 1
SCALE_LAYERS = (  # kernel size, stride and groups of the layers of a scale
    (15, 1, 1), (41, 2, 4), (41, 2, 16), (41, 4, 16), (41, 4, 16), (41, 1, 16), (5, 1, 1),
)  # fmt: skip


def normalize_weights(network: nn.Module, *, spectral: bool = False) -> None:
    """Adds weight normalization (Salimans & Kingma 2016), or spectral, to each convolution."""
    norm = spectral_norm if spectral else parametrizations.weight_norm
    for layer in list(network.modules()):
        if isinstance(layer, CONVOLUTIONS):
            norm(layer)


class HiFiGANGenerator(nn.Module):
    """The generator, section 2.2: mel spectrograms [B, n_mels, frames] to waves [B, C, T] in (-1, 1).

    A transposed convolution for each of `rates`, of kernel size 2 rate, halves the channels; the mean of
    residual blocks of several kernel sizes follows it. T is frames times the product of `rates`, for any
    number of frames. It has no latents. Weights are normalized by weight normalization and drawn as
    PyTorch draws them: so are those of the authors' code, whose N(0, 0.01) the normalization overwrites.

    The defaults are the paper's V3 with 1.46 M parameters. V1, 13.92 M, has channels 512, rates [8, 8, 2, 2],
    kernels [3, 7, 11], dilations [[1, 3, 5], [1, 3, 5], [1, 3, 5]] and paired true; V2, 0.92 M, is V1 with
    channels 128.

    Args:
        sample_shape: [C, T].
        condition: [n_mels, frames].
        channels: of the first layer.
        rates: factor by which each stage lengthens.
        kernels: kernel size of each residual block of a stage.
        dilations: of the convolutions of each residual block.
        paired: follow each dilated convolution with one of dilation 1.

    Raises:
        ValueError: an option is out of range, or `rates` do not take the frames to T.
    """

    uses_batch_statistics = False
    latent_dim = 0

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition,
        *,
        channels: int = 256,
        rates: Sequence[int] = (8, 8, 4),
        kernels: Sequence[int] = (3, 5, 7),
        dilations: Sequence[Sequence[int]] = ((1, 2), (2, 6), (3, 12)),
        paired: bool = False,
    ) -> None:
        super().__init__()
        hop, shape = math.prod(rates), () if isinstance(condition, int) else tuple(condition)
        if len(sample_shape) != 2 or len(shape) != 2 or shape[1] * hop != sample_shape[1]:
            raise ValueError(
                f"HiFiGANGenerator makes {hop} samples of each frame of a mel spectrogram [n_mels, frames] "
                f"(rates {list(rates)}), but the samples' shape is {list(sample_shape)} and the condition is "
                f"{condition}: change rates, or the data's length and hop."
            )
        widths = [channels >> stage for stage in range(len(rates) + 1)]
        if widths[-1] < 1 or min(rates, default=0) < 2 or len(kernels) != len(dilations) or not kernels:
            raise ValueError(
                f"HiFiGANGenerator has channels {channels}, rates {list(rates)}, kernels {list(kernels)} and "
                f"{len(dilations)} dilations: give one rate of at least 2 or more, at least 2^len(rates) "
                "channels, and dilations for each kernel."
            )
        if any(kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"HiFiGANGenerator has kernels {list(kernels)}: give odd numbers.")
        self.condition = shape
        self.first = nn.Conv1d(shape[0], channels, 7, padding=3)
        self.stages = nn.ModuleList(
            Stage(*pair, rate, kernels, dilations, paired)
            for pair, rate in zip(pairwise(widths), rates, strict=True)
        )
        self.last = nn.Conv1d(widths[-1], sample_shape[0], 7, padding=3)
        normalize_weights(self)

    def forward(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        """The waves of mel spectrograms [B, n_mels, frames]; latents are not read."""
        mel = latents if condition is None else condition  # no condition is refused for its shape
        check_shape(self, mel, (self.condition[0], "frames"))
        maps = self.first(mel)
        for stage in self.stages:
            maps = stage(maps)
        return torch.tanh(self.last(F.leaky_relu(maps, LAST_SLOPE)))


class Stage(nn.Module):
    """Maps [B, inputs, T] to [B, outputs, rate T]: the mean of residual blocks of what is upsampled."""

    def __init__(
        self, inputs: int, outputs: int, rate: int, kernels: Sequence[int],
        dilations: Sequence[Sequence[int]], paired: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.upsample = nn.ConvTranspose1d(
            inputs, outputs, 2 * rate, rate, padding=-(-rate // 2), output_padding=rate % 2
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(outputs, kernel, dilation, paired)
            for kernel, dilation in zip(kernels, dilations, strict=True)
        )

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.upsample(F.leaky_relu(maps, SLOPE))
        return torch.stack([block(maps) for block in self.blocks]).mean(0)


class ResidualBlock(nn.Module):
    """Maps [B, C, T] plus dilated convolutions of them, one after the other."""

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], paired: bool) -> None:
        super().__init__()

        def convolve(dilation: int) -> list[nn.Module]:
            padding = dilation * (kernel // 2)
            convolution = nn.Conv1d(channels, channels, kernel, padding=padding, dilation=dilation)
            return [nn.LeakyReLU(SLOPE), convolution]

        self.layers = nn.ModuleList(
            nn.Sequential(*convolve(dilation), *(convolve(1) if paired else ())) for dilation in dilations
        )

    def forward(self, maps: Tensor) -> Tensor:
        for layer in self.layers:
            maps = maps + layer(maps)
        return maps


class HiFiGANDiscriminator(nn.Module):
    """The discriminators, section 2.3: sounds [B, 1, T] to logits [B, K].

    For each period p one discriminator gets the wave folded to [T / p, p]. For each scale one gets the wave
    itself, average-pooled by two for each scale after the first. All positions of the last maps of all of
    them are the K logits, and the loss is the sum over the discriminators of the mean over their positions
    (`logit_counts`, see `AdversarialLoss.sum_of_means`). Weights are normalized by weight normalization,
    those of the first scale by spectral normalization. A condition that is no class is not read.

    The defaults are the paper's, 41.1 M parameters for the periods and 29.6 M for the scales.

    Args:
        sample_shape: [1, T].
        condition: number of classes, for a projection at each position (ours); else 0 or a shape.
        periods: without common factors.
        scales: number of scales.
        period_widths: channels of the layers of a period.
        scale_widths: channels of the seven layers of a scale; groups are as many as divide both sides.

    Raises:
        ValueError: `sample_shape` is not [1, T] or T is too small, there is neither a period nor a scale, or
            the widths do not fit; in `forward` and `features`, as `layers.check_input`.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition = 0,
        *,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        scales: int = 3,
        period_widths: Sequence[int] = (32, 128, 512, 1024, 1024),
        scale_widths: Sequence[int] = (128, 128, 256, 512, 1024, 1024, 1024),
    ) -> None:
        super().__init__()
        if len(sample_shape) != 2 or sample_shape[0] != 1 or sample_shape[1] >> scales < max((*periods, 2)):
            raise ValueError(
                f"HiFiGANDiscriminator needs sounds [1, T] long enough for periods {list(periods)} and "
                f"{scales} scales, but the samples' shape is {list(sample_shape)}: change either."
            )
        period_widths, scale_widths = check_widths(period_widths, self), check_widths(scale_widths, self)
        if min((*periods, 1)) < 1 or scales < 0 or not (periods or scales):
            raise ValueError(
                f"HiFiGANDiscriminator has periods {list(periods)} and {scales} scales: give periods of at "
                "least 1 or a positive number of scales."
            )
        if not period_widths or len(scale_widths) != len(SCALE_LAYERS):
            raise ValueError(
                f"HiFiGANDiscriminator has period_widths {list(period_widths)} and scale_widths "
                f"{list(scale_widths)}: give one of the first or more and {len(SCALE_LAYERS)} of the second."
            )
        self.sample_shape, self.periods = tuple(sample_shape), tuple(periods)
        self.num_classes = condition if isinstance(condition, int) else 0
        strides = [PERIOD_STRIDE] * (len(period_widths) - 1) + [1]
        layers = [(PERIOD_KERNEL, stride, 1) for stride in strides]
        self.period_discriminators = nn.ModuleList(
            SubDiscriminator(self.num_classes, period_widths, layers, columns=True) for _ in periods
        )
        self.scale_discriminators = nn.ModuleList(
            SubDiscriminator(self.num_classes, scale_widths, SCALE_LAYERS, columns=False)
            for _ in range(scales)
        )
        for index, part in enumerate((*self.scale_discriminators, *self.period_discriminators)):
            normalize_weights(part, spectral=index == 0 and scales > 0)
        rows = [-(-sample_shape[1] // period) for period in periods]
        lengths = list(
            accumulate(range(1, scales), lambda length, _: length // 2 + 1, initial=sample_shape[1])
        )
        self.logit_counts = (
            *(positions(height, strides) * period for height, period in zip(rows, periods, strict=True)),
            *(positions(length, [stride for _, stride, _ in SCALE_LAYERS]) for length in lengths[:scales]),
        )

    def forward(self, samples: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.cat([maps[-1].flatten(1) for maps in self._maps(samples, condition)], dim=1)

    def features(self, samples: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """The maps after each layer of each discriminator, its logits included: for feature matching."""
        return list(chain.from_iterable(self._maps(samples, condition)))

    def _maps(self, samples: Tensor, condition: Tensor | None) -> list[list[Tensor]]:
        labels = check_input(self, samples, condition)
        maps = []
        for period, discriminator in zip(self.periods, self.period_discriminators, strict=True):
            padded = F.pad(samples, (0, -samples.shape[-1] % period), mode="reflect")
            maps.append(discriminator(padded.unflatten(2, (-1, period)), labels))
        for discriminator in self.scale_discriminators:
            maps.append(discriminator(samples, labels))
            samples = F.avg_pool1d(samples, 4, stride=2, padding=2)
        return maps


def positions(height: int, strides: Sequence[int]) -> int:
    """What these layers leave of the height: kernels are odd, so each divides by its stride and rounds up."""
    return -(-height // math.prod(strides))


class SubDiscriminator(nn.Module):
    """Maps [B, 1, H] or [B, 1, H, W] to those after each layer by convolutions along H: columns are apart.

    The last ones are the logits. `layers` are (kernel size, stride, groups); `columns`: whether there is W.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int], layers: Sequence[tuple[int, int, int]], columns: bool
    ) -> None:
        super().__init__()

        def convolve(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
            groups = math.gcd(groups, inputs, outputs)
            # PyTorch 2.15's depthwise Conv2d of kernel size [41, 1] writes beyond its memory on CPUs.
            if not columns:
                return nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
            return nn.Conv2d(inputs, outputs, (kernel, 1), (stride, 1), (kernel // 2, 0), groups=groups)

        self.layers = nn.ModuleList(
            convolve(*pair, *layer) for pair, layer in zip(pairwise((1, *widths)), layers, strict=True)
        )
        self.head = convolve(widths[-1], 1, kernel=3)
        self.embed = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, 0.0, widths[-1] ** -0.5)

    def forward(self, maps: Tensor, labels: Tensor | None) -> list[Tensor]:
        features = []
        for layer in self.layers:
            maps = F.leaky_relu(layer(maps), SLOPE)
            features.append(maps)
        logits = to_logits(self.head, maps)
        if self.embed is not None:
            weights = self.embed(labels).view(*maps.shape[:2], *[1] * (maps.ndim - 2))
            logits = logits + (weights * maps).sum(1, keepdim=True)
        return [*features, logits]
