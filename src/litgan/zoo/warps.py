"""Differentiable transforms of geometry and color, with separate parameters for each sample.

Parameters are tensors [B]; images are float [B, C, H, W] in [-1, 1]. Geometric transforms are matrices
[B, 3, 3] from output to input coordinates, in pixels around the center; their product is applied once. Color
transforms are matrices [B, 4, 4] on homogeneous RGB.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.noise import send

# Symlet of six vanishing moments (Daubechies 1992, table 6.3): the anti-aliasing filter of StyleGAN2-ADA,
# appendix B.
SYMLET = (
    0.015404109327, 0.003490712084, -0.117990111148, -0.048311742586, 0.491055941927, 0.787641141030,
    0.337929421728, -0.072637522786, -0.021060292512, 0.044724901771, 0.001767711864, -0.007800708325,
)  # fmt: skip
# Upsampling moves the image, which rotations would reveal. The filter is not symmetric: low frequencies move
# by 0.20 pixels, higher ones by more. The code of StyleGAN2-ADA undoes half a pixel of the doubled size.
OFF_CENTER = 0.25


def matrix(*rows: tuple[Tensor | float, ...]) -> Tensor:
    """A matrix for each sample, [B, n, m], of entries [B] or constants; at least one is a tensor."""
    entries = [entry for row in rows for entry in row]
    like = next(entry for entry in entries if isinstance(entry, Tensor))
    numbers = {entry for entry in entries if not isinstance(entry, Tensor)}
    filled = {number: torch.full_like(like, number) for number in numbers}  # a copy would wait for the GPU
    columns = [entry if isinstance(entry, Tensor) else filled[entry] for entry in entries]
    return torch.stack(columns, 1).view(-1, len(rows), len(rows[0]))


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """The values, with the dtype and on the device of another tensor."""
    return send(torch.tensor(values, dtype=like.dtype), like.device)


def translate(dx: Tensor, dy: Tensor) -> Tensor:
    """Translates the image by `dx` pixels to the right and `dy` down."""
    return matrix((1.0, 0.0, -dx), (0.0, 1.0, -dy), (0.0, 0.0, 1.0))


def scale(x: Tensor, y: Tensor) -> Tensor:
    """Scales the image up by the factors `x` and `y`."""
    return matrix((1 / x, 0.0, 0.0), (0.0, 1 / y, 0.0), (0.0, 0.0, 1.0))


def rotate(angle: Tensor) -> Tensor:
    """Rotates the image counter-clockwise by `angle` radians."""
    cos, sin = angle.cos(), angle.sin()
    return matrix((cos, -sin, 0.0), (sin, cos, 0.0), (0.0, 0.0, 1.0))


def warp(images: Tensor, inverse: Tensor) -> Tensor:
    """Applies matrices [B, 3, 3] from output to input coordinates; images are padded by reflection.

    Images are upsampled before and downsampled after, so that thin lines survive small rotations.
    """
    height, width = images.shape[-2:]
    upsampled = resample(images, up=True)
    offset = torch.full_like(inverse[:, 0, 0], OFF_CENTER)
    inverse = translate(offset, offset) @ inverse @ translate(-offset, -offset)
    half = constant((width / 2, height / 2), inverse)
    to_source = inverse[:, :2, :2] * half[None, None, :] / half[None, :, None]  # in units of half a side
    theta = torch.cat([to_source, (inverse[:, :2, 2] / half)[:, :, None]], 2)
    grid = F.affine_grid(theta.to(images.dtype), list(upsampled.shape), align_corners=False)
    warped: Tensor = Interpolate.apply(upsampled, grid)
    return resample(warped, up=False)


class Interpolate(torch.autograd.Function):
    """Images at the points of a grid, bilinear; it is linear in the images, and has all derivatives in them.

    R1 differentiates twice; `grid_sample` itself has no second derivative in older releases of torch (2.5).
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = images.shape
        return F.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return Transpose.apply(gradient, *ctx.saved_tensors, ctx.shape), None


class Transpose(torch.autograd.Function):
    """The gradient of `Interpolate` in the images, which is linear too."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        unused = gradient.new_zeros(()).expand(shape)  # the images: only the grid's gradient needs them
        of_images, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient, unused, grid, 0, 2, False, [True, False]
        )
        return of_images

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return Interpolate.apply(gradient, *ctx.saved_tensors), None, None


def resample(images: Tensor, *, up: bool) -> Tensor:
    """Doubles or halves the size, filtered by `SYMLET`; away from the borders the two are exact inverses."""
    channels, length = images.shape[1], len(SYMLET)
    taps = constant(SYMLET, images) * (math.sqrt(2.0) if up else math.sqrt(0.5))  # keeps constants
    for axis in (2, 3):
        kernel = taps.view(1, 1, *((-1, 1) if axis == 2 else (1, -1))).expand(channels, -1, -1, -1)
        stride = (2, 1) if axis == 2 else (1, 2)
        border = length // 2 if up else length // 2 - 1
        padded = F.pad(
            images, (0, 0, border, border) if axis == 2 else (border, border, 0, 0), mode="reflect"
        )
        if up:
            crop = 3 * border - 1  # the padding at double size, and half of the filter
            images = F.conv_transpose2d(padded, kernel, stride=stride, groups=channels)
            images = images.narrow(axis, crop, images.shape[axis] - 2 * crop)
        else:
            images = F.conv2d(padded, kernel, stride=stride, groups=channels)
    return images


def brightness(amount: Tensor) -> Tensor:
    """Adds `amount` to every channel."""
    return matrix(
        (1.0, 0.0, 0.0, amount), (0.0, 1.0, 0.0, amount), (0.0, 0.0, 1.0, amount), (0.0, 0.0, 0.0, 1.0)
    )


def contrast(factor: Tensor) -> Tensor:
    """Multiplies every channel by `factor`."""
    return matrix(
        (factor, 0.0, 0.0, 0.0), (0.0, factor, 0.0, 0.0), (0.0, 0.0, factor, 0.0), (0.0, 0.0, 0.0, 1.0)
    )


def luma_projection(like: Tensor) -> Tensor:
    """The projection on the gray axis, v v^T with v = (1, 1, 1, 0) / sqrt 3, [B, 4, 4]."""
    axis = constant((1.0, 1.0, 1.0, 0.0), like) / math.sqrt(3.0)
    return torch.outer(axis, axis).expand(len(like), 4, 4)


def flip_luma(flipped: Tensor) -> Tensor:
    """Inverts the luma and keeps the hue where `flipped` is 1: a Householder reflection."""
    return torch.eye(4, device=flipped.device) - 2.0 * flipped.view(-1, 1, 1) * luma_projection(flipped)


def rotate_hue(angle: Tensor) -> Tensor:
    """Rotates colors about the gray axis by `angle` radians (Rodrigues' formula)."""
    cos, sin, third = angle.cos(), angle.sin() / math.sqrt(3.0), (1 - angle.cos()) / 3.0
    on, left, right = cos + third, third - sin, third + sin
    return matrix(
        (on, left, right, 0.0), (right, on, left, 0.0), (left, right, on, 0.0), (0.0, 0.0, 0.0, 1.0)
    )


def saturation(factor: Tensor) -> Tensor:
    """Multiplies the distance of colors from the gray axis by `factor`."""
    luma = luma_projection(factor)
    return luma + (torch.eye(4, device=factor.device) - luma) * factor.view(-1, 1, 1)


def apply_color_matrix(images: Tensor, matrices: Tensor) -> Tensor:
    """Applies matrices [B, 4, 4] to RGB images; gray images get the mean channel of the transformed gray.

    Raises ValueError: the images have neither 1 nor 3 channels.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(
            f"Colors cannot be changed in images of {images.shape[1]} channels: give ADA color false."
        )
    matrices = matrices.to(images.dtype)
    if images.shape[1] == 1:
        rows = matrices[:, :3].mean(1)
        return images * rows[:, :3].sum(1).view(-1, 1, 1, 1) + rows[:, 3].view(-1, 1, 1, 1)
    transformed = torch.einsum("bij,bjhw->bihw", matrices[:, :3, :3], images)
    return transformed + matrices[:, :3, 3, None, None]
