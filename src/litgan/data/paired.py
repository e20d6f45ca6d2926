"""Pairs of image files: a sample and the image that it is made from."""

from __future__ import annotations

import math
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.data.crops import as_size, center_crop, check_crop, crop_at, random_corners
from litgan.data.files import FileCount
from litgan.data.image_files import (
    MODES,
    OPAQUE,
    SPLIT,
    ImageFiles,
    check_images,
    check_limits,
    check_range,
    find_images,
    read_image,
    splits_of,
)
from litgan.data.loader import Split, to_unit_range
from litgan.noise import Noise
from litgan.render import ImageBatch, SampleBatch

Range = tuple[float, float]
Size = tuple[int, int]
Half = Literal["left", "right"] | None
PREFIXES = ("", "condition_")  # of the options of samples and of conditions
HALVES: dict[str, tuple[Half, Half]] = {  # direction -> that of the samples, that of the conditions
    "left_to_right": ("right", "left"), "right_to_left": ("left", "right"),
}  # fmt: skip


class PairedFolder(GANDataModule):
    """Images, and an image for each from which it shall be made, in two folders or two halves of one file.

    Of both the largest centered part of the wanted shape is resized (see `ImageFiles`).

    Args:
        root: folder or .zip of the samples, or what `litgan pack` has made of all. Where it has the text
            {split}, as in facades/{split}, the word train or test takes its place, and there is a test split.
        conditions: folder or .zip of the conditions, with the names of the samples but for the suffix; null
            where each image of `root` has sample and condition side by side.
        direction: which half of such an image is made from which.
        resolution: of the samples: side in pixels, or height and width.
        condition_resolution: of the conditions; null for that of the samples.
        crop: train on random parts of the samples of this side, or height and width, and of the conditions
            the same part; the middle is measured. Null for none.
        channels: 1 (gray), 2 (gray and transparency), 3 (RGB) or 4 (RGB and transparency).
        condition_channels: likewise.
        convert: convert images of other channel counts instead of refusing them.
        flip: mirror each training pair left to right with probability one half.
        value_range: values of the samples that become -1 and 1, e.g. [0, 65535]; they then keep the precision
            of 16 bits. Null takes 8 bits of each file.
        condition_value_range: likewise of the conditions.
        max_pixels: Pillow's limit: it warns of larger images and refuses those twice as large.
        common: the options of `GANDataModule` but `num_classes`.

    Raises:
        ValueError: an option is out of range, or `crop` has no equal part in the conditions.
    """

    stored_options = ("sizes",)

    def __init__(
        self,
        root: str,
        conditions: str | None = None,
        direction: Literal["left_to_right", "right_to_left"] = "left_to_right",
        resolution: int | Size = 256,
        condition_resolution: int | Size | None = None,
        crop: int | Size | None = None,
        channels: int = 3,
        condition_channels: int = 3,
        convert: bool = False,
        flip: bool = False,
        value_range: Range | None = None,
        condition_value_range: Range | None = None,
        max_pixels: int | None = None,
        **common: Any,
    ) -> None:
        self.sizes = [as_size(resolution), as_size(condition_resolution or resolution)]
        self.steps, self.crops = crop_pairs(self.sizes, None if crop is None else as_size(crop))
        self.channels, self.ranges = [channels, condition_channels], [value_range, condition_value_range]
        for prefix, count, limits in zip(PREFIXES, self.channels, self.ranges, strict=True):
            if count not in MODES:
                raise ValueError(f"data.{prefix}channels must be 1, 2, 3 or 4, not {count}.")
            check_limits(limits, prefix)
        super().__init__((channels, *self.crops[0]), **common)
        if self.condition:
            raise ValueError(
                f"PairedFolder has images for conditions: leave num_classes {self.condition} out."
            )
        self.condition, self.flip = (condition_channels, *self.crops[1]), flip
        self.root, self.conditions, self.direction = root, conditions, direction
        self.convert, self.max_pixels, self.splits = convert, max_pixels, splits_of(root)

    def read(self, split: str) -> Split:
        """
        Raises:
            FileNotFoundError: nothing at `root` or `conditions`, or no image there.
            ValueError: unusable images, or pairs that do not match.
        """
        given = (self.root, self.root if self.conditions is None else self.conditions)
        roots = [Path(one.replace(SPLIT, split)).expanduser() for one in given]
        if self.conditions is None:
            names, halves = [find_images(roots[0]).names] * 2, HALVES[self.direction]
        else:
            names, halves = match(*roots), (None, None)
        parts = [
            ImageFiles(
                root, found, resolution=size, channels=channels, convert=self.convert, value_range=limits,
                max_pixels=self.max_pixels, half=half, prefix=prefix,
            )
            for root, found, size, channels, limits, half, prefix in zip(
                roots, names, self.sizes, self.channels, self.ranges, halves, PREFIXES, strict=True
            )
        ]  # fmt: skip
        for part in parts:  # now, not an hour into the run
            check_range(part, check_images(part))
        if self.conditions is not None:
            check_shapes(*parts)
        self.files[split] = FileCount(len(parts[0]))
        return parts[0], parts[1]

    def augment_pair(
        self, stored: Tensor, condition: Tensor | None, noise: Noise
    ) -> tuple[Tensor, Tensor | None]:
        assert condition is not None
        if self.crops == self.sizes:
            return stored, condition
        uniforms = noise.stream("crop").uniform(2)
        stored, condition = (
            crop_at(part, crop, random_corners(uniforms, size, crop, step))
            for part, size, crop, step in zip(
                (stored, condition), self.sizes, self.crops, self.steps, strict=True
            )
        )
        return stored, condition

    def encode(self, stored: Tensor) -> Tensor:
        return to_unit_range(center_crop(stored, self.crops[0], self.steps[0]))

    def encode_condition(self, stored: Tensor) -> Tensor:
        return to_unit_range(center_crop(stored, self.crops[1], self.steps[1]))

    def decode(self, samples: Tensor) -> SampleBatch:
        return over_white(samples)

    def decode_condition(self, condition: Tensor) -> SampleBatch:
        return over_white(condition)

    def read_sample(self, path: str | Path) -> Tensor:
        return to_unit_range(read_image(path, self.channels[0], self.ranges[0])[None])[0]

    def read_condition(self, path: str | Path) -> Tensor:
        return to_unit_range(read_image(path, self.channels[1], self.ranges[1])[None])[0]


def crop_pairs(sizes: list[Size], crop: Size | None) -> tuple[list[Size], list[Size]]:
    """Of samples and conditions: the smallest equal parts of both, in pixels, and the crops.

    Raises ValueError: the crop is empty, larger than samples, or none of the conditions is equal to it.
    """
    shared = tuple(math.gcd(*sides) for sides in zip(*sizes, strict=True))
    steps: list[Size] = [(size[0] // shared[0], size[1] // shared[1]) for size in sizes]
    if crop is None:
        return steps, list(sizes)
    check_crop(crop, sizes[0])
    if any(side % step for side, step in zip(crop, steps[0], strict=True)):
        raise ValueError(
            f"data.crop {list(crop)} of samples of {list(sizes[0])} pixels has no equal part in conditions "
            f"of {list(sizes[1])}: give multiples of {list(steps[0])}."
        )
    cells = (crop[0] // steps[0][0], crop[1] // steps[0][1])
    return steps, [crop, (cells[0] * steps[1][0], cells[1] * steps[1][1])]


def match(root: Path, conditions: Path) -> list[list[str]]:
    """The names of samples and, in the same order, of their conditions; suffixes may differ.

    Raises ValueError: an image has none or two to match.
    """
    found: list[dict[str, str]] = []
    for folder in (root, conditions):
        found.append({})
        for name in find_images(folder).names:
            stem = str(PurePosixPath(name).with_suffix(""))
            if stem in found[-1]:
                raise ValueError(
                    f"{folder / found[-1][stem]} and {folder / name} have one name: remove one of them."
                )
            found[-1][stem] = name
    lone = [
        f"{folder / own[stem]} has no partner {other / stem}.*"
        for own, theirs, folder, other in (
            (found[0], found[1], root, conditions),
            (found[1], found[0], conditions, root),
        )
        for stem in sorted(own.keys() - theirs.keys())
    ]
    if lone:
        shown = ", ".join(lone[:3]) + (f", and {len(lone) - 3:,} more" if len(lone) > 3 else "")
        raise ValueError(f"Pairs do not match: {shown}; give both images of a pair one name.")
    stems = sorted(found[0])
    return [[names[stem] for stem in stems] for names in found]


def check_shapes(samples: ImageFiles, conditions: ImageFiles) -> None:
    """Raises ValueError unless a sample and its condition are as high for their width, to within a pixel."""
    sizes = [check_images(part, "size") for part in (samples, conditions)]
    for name, other, (height, width), (high, wide) in zip(
        samples.names, conditions.names, *sizes, strict=True
    ):
        if abs(width * high - wide * height) > max(height, width, high, wide):
            raise ValueError(
                f"{samples.root / name} has {height} x {width} pixels (height x width) and its condition "
                f"{conditions.root / other} has {high} x {wide}: give both the same shape."
            )


def over_white(samples: Tensor) -> ImageBatch:
    """Images [N, 1 to 4, H, W] in [-1, 1] as a batch; transparent ones over white."""
    if samples.shape[1] not in OPAQUE:
        colors, opacity = samples[:, :-1].clamp(-1, 1), samples[:, -1:].clamp(-1, 1) / 2 + 0.5
        samples = (colors - 1) * opacity + 1
    return ImageBatch.from_unit_range(samples)
