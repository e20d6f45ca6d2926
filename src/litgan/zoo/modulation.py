"""The parts of StyleGAN2's generator: mapping network, modulated convolution, synthesis network.

Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN"; the mapping network is that of
Karras et al. 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

from litgan.networks.layers import SLOPE, PixelNorm
from litgan.noise import Noise
from litgan.zoo.equalized import FIR, GAIN, EqualizedLinear

LR_MULTIPLIER = 0.01  # of the mapping network; Karras et al. 2019, appendix C
EPSILON = 1e-8


class MappingNetwork(nn.Module):
    """Latents [B, latent_dim], labels or both to styles [B, style_dim]; Karras et al. 2019, section 2.

    Latents and the class embedding are each scaled to root mean square 1, then concatenated.

    Args:
        latent_dim: Length of the latents, 0 without latents.
        style_dim: Length of the styles and of the embedding.
        depth: Number of linear layers, each followed by a leaky ReLU.
        num_classes: 0 for no embedding.
    """

    def __init__(self, latent_dim: int, style_dim: int, depth: int, num_classes: int) -> None:
        super().__init__()
        self.normalize = PixelNorm()
        self.embed = nn.Embedding(num_classes, style_dim) if num_classes else None
        inputs = latent_dim + (style_dim if num_classes else 0)
        self.layers = nn.ModuleList(
            EqualizedLinear(a, b, gain=GAIN, lr_multiplier=LR_MULTIPLIER)
            for a, b in pairwise([inputs, *[style_dim] * depth])
        )

    def forward(self, latents: Tensor | None, labels: Tensor | None = None) -> Tensor:
        parts = [latents, None if self.embed is None else self.embed(labels)]
        features = torch.cat([self.normalize(part) for part in parts if part is not None], dim=1)
        for layer in self.layers:
            features = leaky_relu(layer(features), SLOPE)
        return features


class ModulatedConv2d(nn.Module):
    """Convolves maps [B, inputs, R, R] with weights that each sample's style scales; Karras et al. 2020, 2.2.

        w'_ijk = s_i w_ijk                                  (eq. 1)
        w''_ijk = w'_ijk / sqrt(sum_ik w'_ijk^2 + epsilon)  (eq. 3)

    i, j and k index inputs, outputs and kernel positions; s is an affine function of the style, about 1 at
    initialization. Inputs of independent values of variance 1 give outputs of variance 1. There are two
    equivalent implementations: one convolution for the whole batch with the maps scaled before and after it,
    or a grouped convolution with separate weights for each sample (less memory for maps, more for weights).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output, [B, outputs, R, R], or 2R if `up`.
        kernel_size: Side of the kernel, an odd number.
        style_dim: Length of the styles.
        demodulate: Whether to apply eq. 3; otherwise weights are scaled by 1 / sqrt(fan-in).
        up: Double the side by a transposed convolution and a low-pass filter.
        grouped: Use the grouped implementation.
        gain: Factor on the output, as in `equalized.EqualizedLinear`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        style_dim: int,
        *,
        demodulate: bool = True,
        up: bool = False,
        grouped: bool = False,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.affine = EqualizedLinear(style_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel_size, kernel_size))
        self.scale = (inputs * kernel_size**2) ** -0.5
        self.demodulate, self.grouped, self.gain = demodulate, grouped, gain
        self.filter = FIR() if up else None

    def forward(self, maps: Tensor, style: Tensor) -> Tensor:
        scales, weight = self.affine(style), self.weight * self.scale
        demodulation = self.demodulation(scales, weight)
        if self.grouped:
            per_sample = scales[:, None] * demodulation[:, :, None]  # [B, outputs, inputs]
            weights, count = weight * per_sample[..., None, None], len(maps)
            maps = self.convolve(maps.reshape(1, -1, *maps.shape[2:]), weights.flatten(0, 1), count)
            return maps.unflatten(1, (count, -1)).squeeze(0)
        maps = self.convolve(maps * scales[:, :, None, None], weight, 1)
        return maps * demodulation[:, :, None, None].to(maps.dtype)

    def demodulation(self, scales: Tensor, weight: Tensor) -> Tensor:
        """The factor of each output channel, [B, outputs], or [B, 1] without demodulation."""
        if not self.demodulate:
            return torch.full_like(scales[:, :1], self.gain)
        squares = scales.square() @ weight.square().sum((2, 3)).T
        return self.gain * (squares + EPSILON).rsqrt()

    def convolve(self, maps: Tensor, weight: Tensor, groups: int) -> Tensor:
        """Convolves maps [N, groups * inputs, R, R] with weights [groups * outputs, inputs, k, k]."""
        if self.filter is None:
            return conv2d(maps, weight, padding=weight.shape[-1] // 2, groups=groups)
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        maps = conv_transpose2d(maps, weight, stride=2, groups=groups)
        return self.filter(maps, padding=1, gain=4.0)


class StyledConv(nn.Module):
    """Modulated 3 x 3 convolution of maps [B, C, R, R], noise, bias, leaky ReLU; Karras et al. 2020, fig. 2d.

    The noise has one channel. In training each sample gets new noise from torch's global generator; in
    evaluation it is that of the call's random numbers, or without them a buffer's, the same for all samples.
    """

    noise: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        resolution: int,
        style_dim: int,
        *,
        up: bool,
        noise: bool,
        grouped: bool,
    ) -> None:
        super().__init__()
        self.convolution = ModulatedConv2d(inputs, outputs, 3, style_dim, up=up, grouped=grouped, gain=GAIN)
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))
        self.noise_strength = nn.Parameter(torch.zeros(())) if noise else None
        self.register_buffer("noise", torch.randn(resolution, resolution) if noise else None)

    def forward(self, maps: Tensor, style: Tensor, noise: Noise | None = None) -> Tensor:
        maps = self.convolution(maps, style)
        if self.noise_strength is not None:
            if self.training:
                plane = torch.randn_like(maps[:, :1])
            else:
                plane = self.noise if noise is None else noise.normal(1, *maps.shape[2:])
            maps = maps + (GAIN * self.noise_strength * plane).to(maps.dtype)
        return leaky_relu(maps + (GAIN * self.bias).to(maps.dtype), SLOPE)


class SynthesisNetwork(nn.Module):
    """Styles [B, 2 * len(widths), style_dim] to images: the sum of one image per resolution; figure 7b.

    A learned constant, then two layers per resolution (one at 4 x 4), each with its own style. The 1 x 1
    convolution from maps to an image is not demodulated and shares its style with the next layer.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], style_dim: int, *, noise: bool, grouped: bool
    ) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        self.layers = nn.ModuleList()
        for depth, (inputs, outputs) in enumerate(pairwise((widths[0], *widths))):
            layer = partial(
                StyledConv, resolution=4 << depth, style_dim=style_dim, noise=noise, grouped=grouped
            )
            if depth:
                self.layers.append(layer(inputs, outputs, up=True))
            self.layers.append(layer(outputs, outputs, up=False))
        self.to_rgb = nn.ModuleList(
            ModulatedConv2d(width, channels, 1, style_dim, demodulate=False, grouped=grouped)
            for width in widths
        )
        self.bias = nn.Parameter(torch.zeros(len(widths), channels, 1, 1))
        self.filter = FIR()

    def forward(self, styles: Tensor, noise: Noise | None = None) -> Tensor:
        style = styles.unbind(1)
        planes = [None if noise is None else noise.stream(str(index)) for index in range(len(self.layers))]
        maps = self.layers[0](self.constant.expand(styles.shape[0], -1, -1, -1), style[0], planes[0])
        image = self.to_rgb[0](maps, style[1]) + self.bias[0]
        for depth in range(1, len(self.to_rgb)):
            for index in (2 * depth - 1, 2 * depth):
                maps = self.layers[index](maps, style[index], planes[index])
            rgb = self.to_rgb[depth](maps, style[2 * depth + 1]) + self.bias[depth]
            image = self.filter.upsample(image) + rgb
        return image
