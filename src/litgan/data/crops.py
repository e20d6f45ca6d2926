"""Crops of batches of images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def as_size(resolution: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a side in pixels, or of both."""
    return (resolution, resolution) if isinstance(resolution, int) else (resolution[0], resolution[1])


def check_crop(crop: tuple[int, int], size: tuple[int, int]) -> None:
    """Raises ValueError if a crop is empty or larger than images of this size."""
    if not all(1 <= part <= side for part, side in zip(crop, size, strict=True)):
        raise ValueError(
            f"data.crop is {list(crop)} where data.resolution is {list(size)}: give a crop of at least one "
            "pixel a side that is no larger."
        )


def center_crop(images: Tensor, size: tuple[int, int], step: tuple[int, int] = (1, 1)) -> Tensor:
    """The middle of images [B, C, H, W], a view whose upper left corner is a multiple of `step`."""
    axes = zip(images.shape[2:], size, step, strict=True)
    top, left = ((side - part) // (2 * by) * by for side, part, by in axes)
    return images[:, :, top : top + size[0], left : left + size[1]]


def crop_at(images: Tensor, size: tuple[int, int], corners: Tensor) -> Tensor:
    """Of images [B, C, H, W] the parts whose upper left corners are at `corners`, int64 [B, 2]."""
    ranges = [torch.arange(side, device=images.device) for side in size]
    rows, columns = (corners[:, axis, None] + part for axis, part in enumerate(ranges))
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return images[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def random_corners(
    uniforms: Tensor, size: Sequence[int], crop: Sequence[int], step: Sequence[int] = (1, 1)
) -> Tensor:
    """Upper left corners [B, 2], multiples of `step`, of crops of images of a size; `uniforms` [B, 2]."""
    axes = enumerate(zip(size, crop, step, strict=True))
    return torch.stack(
        [(uniforms[:, axis] * ((side - part) // by + 1)).long() * by for axis, (side, part, by) in axes], 1
    )
