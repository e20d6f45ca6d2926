"""Convolutions whose second derivatives are single convolutions, for gradient penalties such as R1.

torch's own second derivative of a convolution with groups loops over them: a block of 96 groups starts some
hundred kernels. Gradients have the dtype of the forward pass, whatever autocast holds in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d
from torch.nn.grad import conv2d_weight

from litgan.networks.layers import without_autocast


class FilterFunction(torch.autograd.Function):
    """Depthwise convolution of maps [B, C, H, W], zero-padded, with one symmetric kernel [1, 1, K, K].

    Its gradient is the same filter.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernel: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(kernel)
        ctx.padding = padding
        channels = maps.shape[1]
        return conv2d(
            maps, kernel.to(maps.dtype).expand(channels, -1, -1, -1), padding=padding, groups=channels
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (kernel,) = ctx.saved_tensors
        padding = kernel.shape[-1] - 1 - ctx.padding
        with without_autocast(gradients[0].device):
            return FilterFunction.apply(gradients[0], kernel, padding), None, None


class GroupedConv2d(nn.Conv2d):
    """Convolution of maps [B, inputs, H, W] in groups, zero-padded so that H and W stay.

    It is linear in the maps and in the weight, and is made of one function for the gradient in each: a
    penalty's gradient in the samples then does not compute those in the weights, to throw them away.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        kernel_size: Side of the kernel, an odd number.
        groups: As in `nn.Conv2d`.
    """

    bias: nn.Parameter
    padding: tuple[int, ...]

    def __init__(self, inputs: int, outputs: int, kernel_size: int, *, groups: int) -> None:
        super().__init__(inputs, outputs, kernel_size, padding=kernel_size // 2, groups=groups)

    def forward(self, maps: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # compiled graphs are differentiated once
            return super().forward(maps)
        if torch.is_autocast_enabled(maps.device.type):
            maps = maps.to(torch.get_autocast_dtype(maps.device.type))
        weight, bias = self.weight.to(maps.dtype), self.bias.to(maps.dtype)
        made = OfMaps.apply(maps, [weight], self.padding, self.groups)
        bias = bias[:, None, None].expand_as(made)
        return made + OfWeight.apply(weight, bias, [maps], self.padding, self.groups)


class OfMaps(torch.autograd.Function):
    """A convolution, differentiable in the maps only: autograd does not see tensors in a list."""

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: list[Tensor], padding: tuple[int, ...], groups: int
    ) -> Tensor:
        ctx.save_for_backward(*weight)
        ctx.options = padding, groups
        return conv2d(maps, weight[0], padding=padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (weight,), (padding, groups) = gradients, ctx.saved_tensors, ctx.options
        with without_autocast(gradient.device):
            return conv_transpose2d(gradient, weight, padding=padding, groups=groups), None, None, None


class OfWeight(torch.autograd.Function):
    """The bias as it is, whose gradient also reaches the weight of the convolution that it is added to."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, maps: list[Tensor], padding: tuple[int, ...], groups: int
    ) -> Tensor:
        ctx.save_for_backward(*maps)
        ctx.options = weight.shape, padding, groups
        return bias

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,), (maps,), (shape, padding, groups) = gradients, ctx.saved_tensors, ctx.options
        return (
            conv2d_weight(maps, shape, gradient, padding=padding, groups=groups),
            gradient,
            None,
            None,
            None,
        )
