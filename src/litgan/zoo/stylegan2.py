"""StyleGAN2, Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN".

Truncation and style mixing are those of Karras et al. 2019; the conditional networks and the defaults, for
32 x 32, are those of Karras et al. 2020b, "Training generative adversarial networks with limited data" (ADA).
The smallest maps are 4 x 4: `widths` has one entry for each resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from litgan.networks.layers import SLOPE, check_input, check_widths, image_side, to_logits
from litgan.noise import Noise
from litgan.options import check_counts
from litgan.zoo.equalized import FIR, GAIN, EqualizedConv2d, EqualizedLinear
from litgan.zoo.modulation import EPSILON, MappingNetwork, SynthesisNetwork

STYLE_DECAY = 0.995  # of the average style, per batch, as in the code of ADA. Only truncation uses it.


class StyleGAN2Generator(nn.Module):
    """Latents [B, latent_dim] to images [B, C, R, R]; the last layer is linear, so pixels may exceed [-1, 1].

    In training each forward pass updates `average_style`, a running mean. `truncation` interpolates from it
    (0: all samples are equal) to the styles (1: no truncation).

    Args:
        sample_shape: [C, R, R], R a power of two.
        num_classes: 0 for an unconditional generator, which ignores labels.
        latent_dim: Length of the latents.
        style_dim: Length of the styles and of the class embedding.
        widths: Channels of the maps at each resolution, from 4 x 4 upwards.
        mapping_layers: Layers of the mapping network.
        noise: Add noise to the maps of all layers.
        fixed_noise: `GAN.sample` gives all samples the same noise instead of each its own. Published FIDs
            are of new noise for each sample.
        style_mixing: Fraction of training samples whose layers from a random one on take the style of other
            latents, drawn from torch's global generator (Karras et al. 2019, section 3.1; 0.9 there).
        grouped: Implementation of the modulated convolutions, see `modulation.ModulatedConv2d`.
    """

    uses_batch_statistics = False
    truncates = True  # `forward` takes `truncation`, so `sampling` does not truncate the latents

    average_style: Tensor

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        latent_dim: int = 512,
        style_dim: int = 512,
        widths: Sequence[int] = (512, 512, 512, 512),
        mapping_layers: int = 8,
        noise: bool = True,
        fixed_noise: bool = False,
        style_mixing: float = 0.0,
        grouped: bool = False,
    ) -> None:
        super().__init__()
        channels, widths = stylegan2_geometry(sample_shape, widths, self)
        check_counts(latent_dim=latent_dim, style_dim=style_dim, mapping_layers=mapping_layers)
        if not 0 <= style_mixing <= 1:
            raise ValueError(f"StyleGAN2Generator has style_mixing {style_mixing}: give a share from 0 to 1.")
        self.num_classes, self.latent_dim, self.style_mixing = num_classes, latent_dim, style_mixing
        self.num_styles, self.draws_noise = 2 * len(widths), noise and not fixed_noise
        self.mapping = MappingNetwork(latent_dim, style_dim, mapping_layers, num_classes)
        self.synthesis = SynthesisNetwork(channels, widths, style_dim, noise=noise, grouped=grouped)
        self.register_buffer("average_style", torch.zeros(style_dim))

    def forward(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        *,
        truncation: float | None = None,
        cutoff: int | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        """Images; in evaluation with the noise of these random numbers, or without them with fixed noise."""
        return self.synthesis(self.styles(latents, labels, truncation=truncation, cutoff=cutoff), noise)

    def styles(
        self,
        latents: Tensor,
        labels: Tensor | None = None,
        *,
        truncation: float | None = None,
        cutoff: int | None = None,
    ) -> Tensor:
        """Styles [B, num_styles, style_dim], in the order of the layers from 4 x 4 on.

        Args:
            latents: [B, latent_dim].
            labels: Classes [B].
            truncation: psi of Karras et al. 2019, appendix B: w' = average + psi (w - average).
            cutoff: Number of the first styles that are truncated; None for all.
        """
        labels = check_input(self, latents, labels)
        mapped = self.mapping(latents, labels).to(self.average_style.dtype)
        if self.training:
            with torch.no_grad():
                self.average_style.lerp_(mapped.mean(0), 1 - STYLE_DECAY)
        styles = mapped[:, None].expand(-1, self.num_styles, -1)
        if self.training and self.style_mixing:
            styles = self.mix_styles(styles, labels)
        if truncation is None:
            return styles
        cutoff = self.num_styles if cutoff is None else cutoff
        if not 0 <= cutoff <= self.num_styles:
            raise ValueError(
                f"StyleGAN2Generator has {self.num_styles} styles: give a cutoff from 0 to that."
            )
        truncated = torch.lerp(self.average_style, styles[:, :cutoff], truncation)
        return torch.cat([truncated, styles[:, cutoff:]], dim=1)

    def mix_styles(self, styles: Tensor, labels: Tensor | None) -> Tensor:
        """Replaces the styles of some samples by others, from a random layer on."""
        count, device = styles.shape[0], styles.device
        others = self.mapping(
            torch.randn(count, self.latent_dim, device=device, dtype=styles.dtype), labels
        ).to(styles.dtype)
        crossing = torch.randint(1, self.num_styles, (count, 1), device=device)
        stays = torch.rand(count, 1, device=device) >= self.style_mixing
        own = stays | (torch.arange(self.num_styles, device=device) < crossing)  # [B, num_styles]
        return torch.where(own[..., None], styles, others[:, None])


class MinibatchStd(nn.Module):
    """Appends standard deviations over groups of samples to maps [B, C, H, W]: [B, C + channels, H, W].

    Each appended channel is the standard deviation over a group, averaged over positions and C / channels
    channels; Karras et al. 2018, section 3. A group has `group_size` samples, or fewer if `group_size` does
    not divide the batch.
    """

    def __init__(self, group_size: int, channels: int) -> None:
        super().__init__()
        self.group_size, self.channels = group_size, channels

    def forward(self, maps: Tensor) -> Tensor:
        size = min(self.group_size, len(maps))
        while len(maps) % size:
            size -= 1
        wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
        groups = wide.unflatten(0, (size, -1)).unflatten(2, (self.channels, -1))
        variance = (groups - groups.mean(0)).square().mean(0)  # [B / size, channels, C / channels, H, W]
        std = (variance + EPSILON).sqrt().mean((2, 3, 4))
        planes = std.repeat(size, 1)[:, :, None, None].expand(-1, -1, *maps.shape[2:])
        return torch.cat([maps, planes.to(maps.dtype)], dim=1)


class DiscriminatorBlock(nn.Module):
    """Maps [B, inputs, R, R] to [B, outputs, R/2, R/2]; Karras et al. 2020, figure 7c.

    Two convolutions, the second low-pass filtered and strided. If `residual`, the downsampled input is added
    after a 1 x 1 convolution, and the sum is divided by sqrt(2), which keeps its variance.
    """

    def __init__(self, inputs: int, outputs: int, *, residual: bool) -> None:
        super().__init__()
        self.conv = EqualizedConv2d(inputs, inputs, 3, gain=GAIN)
        self.conv_down = EqualizedConv2d(
            inputs, outputs, 3, stride=2, padding=0, gain=GAIN * 0.5**0.5 if residual else GAIN
        )
        self.shortcut = EqualizedConv2d(inputs, outputs, 1, bias=False, gain=0.5**0.5) if residual else None
        self.filter = FIR()

    def forward(self, maps: Tensor) -> Tensor:
        result = leaky_relu(self.conv(maps), SLOPE)
        result = leaky_relu(self.conv_down(self.filter(result, padding=2)), SLOPE)
        return result if self.shortcut is None else result + self.shortcut(self.filter.downsample(maps))


class StyleGAN2Discriminator(nn.Module):
    """Images [B, C, R, R] to logits [B, 1]; conditional by projection on the mapped class embedding.

    Blocks down to 4 x 4, minibatch standard deviation, a convolution and two linear layers. The logit of a
    sample depends on the others of its group: `uses_batch_statistics`.

    Args:
        sample_shape: [C, R, R], R a power of two.
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        widths: Channels of the maps at each resolution, down to 4 x 4.
        residual: Whether blocks have shortcuts (Karras et al. 2020b: not for CIFAR-10).
        group_size: Samples of a group of `MinibatchStd`.
        std_channels: Channels that `MinibatchStd` appends.
        mapping_layers: Layers that map the class embedding.
    """

    uses_batch_statistics = True

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        widths: Sequence[int] = (512, 512, 512, 512),
        residual: bool = True,
        group_size: int = 4,
        std_channels: int = 1,
        mapping_layers: int = 8,
    ) -> None:
        super().__init__()
        channels, widths = stylegan2_geometry(sample_shape, widths, self)
        check_counts(group_size=group_size, std_channels=std_channels, mapping_layers=mapping_layers)
        last = widths[-1]
        if last % std_channels:
            raise ValueError(
                f"StyleGAN2Discriminator makes {std_channels} std_channels of its last {last} channels, "
                f"equal shares each: give a divisor of {last}."
            )
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        self.from_rgb = EqualizedConv2d(channels, widths[0], 1, gain=GAIN)
        self.blocks = nn.Sequential(
            *(DiscriminatorBlock(a, b, residual=residual) for a, b in pairwise(widths))
        )
        self.minibatch_std = MinibatchStd(group_size, std_channels)
        self.conv = EqualizedConv2d(last + std_channels, last, 3, gain=GAIN)
        self.linear = EqualizedLinear(last * 4 * 4, last, gain=GAIN)
        self.head = EqualizedLinear(last, last if num_classes else 1)
        self.mapping = MappingNetwork(0, last, mapping_layers, num_classes) if num_classes else None

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        maps = self.blocks(leaky_relu(self.from_rgb(samples), SLOPE))
        maps = leaky_relu(self.conv(self.minibatch_std(maps)), SLOPE)
        features = to_logits(self.head, leaky_relu(self.linear(maps.flatten(1)), SLOPE))
        if self.mapping is None:
            return features
        mapped = self.mapping(None, labels)
        return (features * mapped).sum(1, keepdim=True) * mapped.shape[1] ** -0.5


def stylegan2_geometry(
    sample_shape: Sequence[int], widths: Sequence[int], owner: nn.Module
) -> tuple[int, tuple[int, ...]]:
    """Channels of the image, and the widths as a tuple.

    Raises ValueError: the image is not square, its side is not a power of two, or there is not one positive
    width for each resolution from 4 x 4 on.
    """
    side = image_side(sample_shape, owner)
    expected = side.bit_length() - 2
    if len(widths) != expected:
        raise ValueError(
            f"{type(owner).__name__} has maps of {expected} resolutions from 4 to {side}, but widths has "
            f"{len(widths)} entries: give {expected}."
        )
    return sample_shape[0], check_widths(widths, owner)
