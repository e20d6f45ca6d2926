"""Layers with equalized learning rate, Karras et al. 2018, and the low-pass filter of Karras et al. 2020."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad

from litgan.networks.convolutions import FilterFunction

GAIN = 2**0.5  # compensates for ReLU, which halves the mean square; He et al. 2015, eq. 10


class EqualizedLinear(nn.Module):
    """Features [B, inputs] to [B, outputs] with equalized learning rate; Karras et al. 2018, section 4.1.

    Weights are stored as N(0, 1) and multiplied by 1 / sqrt(inputs) in each pass. The updates of Adam do not
    depend on the gradients' scale, so layers of all widths then learn at the same relative rate.

    Args:
        inputs: Length of the input features.
        outputs: Length of the output features.
        bias: Initial value of all biases.
        gain: Factor on the output; it can be that of a following leaky ReLU, with which it commutes.
        lr_multiplier: Factor on the learning rate: weights and biases are stored divided by it.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: float = 0.0, gain: float = 1.0, lr_multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.weight_scale, self.bias_scale = gain * lr_multiplier * inputs**-0.5, gain * lr_multiplier

    def forward(self, features: Tensor) -> Tensor:
        return linear(features, self.weight * self.weight_scale, self.bias * self.bias_scale)


class EqualizedConv2d(nn.Module):
    """Convolution of maps [B, inputs, H, W] with equalized learning rate, see `EqualizedLinear`.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel_size: Side of the kernel, an odd number.
        stride: As in `nn.Conv2d`.
        padding: As in `nn.Conv2d`; None for kernel_size // 2.
        bias: Whether the layer has biases; they start at 0.
        gain: As in `EqualizedLinear`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.stride, self.padding = stride, kernel_size // 2 if padding is None else padding
        self.weight_scale, self.bias_scale = gain * (inputs * kernel_size**2) ** -0.5, gain

    def forward(self, maps: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.bias_scale
        return conv2d(maps, self.weight * self.weight_scale, bias, self.stride, self.padding)


class FIR(nn.Module):
    """Low-pass filter [1, 3, 3, 1] / 8 along both axes of maps [B, C, H, W], zero-padded; no weights.

    It prevents aliasing in upsampling and downsampling (Zhang 2019, "Making convolutional networks
    shift-invariant again").
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None], persistent=False)

    def forward(self, maps: Tensor, *, padding: int, gain: float = 1.0) -> Tensor:
        """The filtered maps times `gain`, [B, C, H + 2 padding - 3, W + 2 padding - 3]."""
        return FilterFunction.apply(maps, gain * self.kernel, padding)

    def downsample(self, maps: Tensor) -> Tensor:
        """Maps [B, C, R, R] to [B, C, R/2, R/2]."""
        return self(maps, padding=1)[..., ::2, ::2]

    def upsample(self, maps: Tensor) -> Tensor:
        """Maps [B, C, R, R] to [B, C, 2R, 2R]; the gain of 4 compensates for the inserted zeros."""
        zero_stuffed = pad(maps[..., :, None, :, None], (0, 1, 0, 0, 0, 1)).flatten(4).flatten(2, 3)
        return self(zero_stuffed, padding=2, gain=4.0)[..., :-1, :-1]
