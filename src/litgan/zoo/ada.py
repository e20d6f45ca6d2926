"""Adaptive discriminator augmentation."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from litgan.augment import AdaptiveAugmentation, check_images
from litgan.losses import to_float32
from litgan.precision import full_float32
from litgan.schedules import Schedule
from litgan.zoo import warps


class ADA(AdaptiveAugmentation):
    """Adaptive discriminator augmentation, Karras et al. 2020, section 3 and appendix B, for images.

    Each transform of the pipeline (pixel blitting, geometry, color: the paper's "bgc") is applied to a sample
    with probability p. Samples without any transform are returned bit for bit.

    Args:
        p, target, interval, images: see `AdaptiveAugmentation`.
        color: include color transforms; a number is a factor of p for each of them.
        cutout: factor of p for a gray square of half the side around a random point (0 in the paper's "bgc").

    Raises:
        ValueError: color or cutout is not between 0 and 1; see `AdaptiveAugmentation`.
    """

    def __init__(
        self,
        p: float | Schedule = 0.0,
        target: float | None = 0.6,
        interval: int = 4,
        images: int = 500_000,
        color: bool | float = True,
        cutout: float = 0.0,
    ) -> None:
        super().__init__(p, target, interval, images)
        if not 0 <= color <= 1 or not 0 <= cutout <= 1:
            raise ValueError(f"ADA has color = {color} and cutout = {cutout}: give factors of p from 0 to 1.")
        self.color, self.cutout = float(color), cutout
        self.num_uniforms = 31 if cutout else 28

    def forward(self, samples: Tensor, uniforms: Tensor) -> Tensor:
        check_images(self, samples)
        numbers = iter(uniforms.unbind(1))
        with full_float32(samples.device):  # in bf16 images would be moved by a pixel
            images = self.warp(to_float32(samples), numbers, samples.shape[2:])
            images = self.transform_colors(numbers, images) if self.color else images
            images = self.cut_out(numbers, images) if self.cutout else images
        return images.to(samples.dtype)

    def move(self, condition: Tensor, uniforms: Tensor, size: torch.Size) -> Tensor:
        """Its geometry; a condition of another size moves by as much of a side."""
        with full_float32(condition.device):
            moved = self.warp(to_float32(condition), iter(uniforms.unbind(1)), size)
        return moved.to(condition.dtype)

    def warp(self, images: Tensor, numbers: Iterator[Tensor], size: torch.Size) -> Tensor:
        """Images, moved as samples of this size are."""
        check_images(self, images)
        changed, inverse = self.geometry(numbers, *size)
        larger = warps.constant((size[1] / images.shape[3], size[0] / images.shape[2], 1.0), inverse)
        inverse = inverse * larger / larger[:, None]  # from pixels of the samples to those of the images
        return torch.where(changed.view(-1, 1, 1, 1), warps.warp(images, inverse), images)

    def geometry(self, numbers: Iterator[Tensor], height: int, width: int) -> tuple[Tensor, Tensor]:
        """A mask [B] of transformed samples, and their matrices [B, 3, 3] from output to input pixels."""
        p_rotation = 1 - (1 - self.p).sqrt()  # two rotations, together with probability p (appendix B)
        gates: list[Tensor] = []

        def gated(neutral: float, value: Tensor, gate: Tensor) -> Tensor:
            return torch.where(gate, value, neutral)

        def gate(chance: Tensor) -> Tensor:
            gates.append(next(numbers) < chance)
            return gates[-1]

        on = gate(self.p)
        flip = gated(1.0, 1 - 2 * (next(numbers) * 2).floor(), on)
        on = gate(self.p)
        quarter_turn = gated(0.0, (next(numbers) * 4).floor() * (math.pi / 2), on)
        on = gate(self.p)
        integer_shift = [
            gated(0.0, ((2 * next(numbers) - 1) * side / 8).round(), on) for side in (width, height)
        ]
        on = gate(self.p)
        zoom = gated(1.0, torch.exp2(0.2 * normal(next(numbers))), on)
        on = gate(p_rotation)
        pre_rotation = gated(0.0, (2 * next(numbers) - 1) * math.pi, on)
        on = gate(self.p)
        stretch = gated(1.0, torch.exp2(0.2 * normal(next(numbers))), on)
        on = gate(p_rotation)
        post_rotation = gated(0.0, (2 * next(numbers) - 1) * math.pi, on)
        on = gate(self.p)
        fractional_shift = [gated(0.0, normal(next(numbers)) * side / 8, on) for side in (width, height)]
        inverse = warps.scale(flip, torch.ones_like(flip)) @ warps.rotate(quarter_turn)
        inverse = inverse @ warps.translate(*integer_shift)
        inverse = inverse @ warps.scale(zoom, zoom) @ warps.rotate(pre_rotation)
        inverse = inverse @ warps.scale(stretch, 1 / stretch) @ warps.rotate(post_rotation)
        inverse = inverse @ warps.translate(*fractional_shift)
        return torch.stack(gates).any(0), inverse

    def transform_colors(self, numbers: Iterator[Tensor], images: Tensor) -> Tensor:
        """Images with random brightness, contrast, luma flip, hue and saturation."""
        transforms = []
        for neutral, build, value in (
            (0.0, warps.brightness, lambda u: 0.2 * normal(u)),
            (1.0, warps.contrast, lambda u: torch.exp2(0.5 * normal(u))),
            (0.0, warps.flip_luma, lambda u: (2 * u).floor()),
            (0.0, warps.rotate_hue, lambda u: (2 * u - 1) * math.pi),
            (1.0, warps.saturation, lambda u: torch.exp2(normal(u))),
        ):
            on = next(numbers) < self.color * self.p
            transforms.append((on, build(torch.where(on, value(next(numbers)), neutral))))
        changed = torch.stack([on for on, _ in transforms]).any(0)
        matrix = transforms[0][1]
        for _, following in transforms[1:]:
            matrix = following @ matrix
        return torch.where(changed.view(-1, 1, 1, 1), warps.apply_color_matrix(images, matrix), images)

    def cut_out(self, numbers: Iterator[Tensor], images: Tensor) -> Tensor:
        """Images with 0 in a square of half the side."""
        cut = (next(numbers) < self.cutout * self.p).view(-1, 1, 1, 1)
        for axis in (3, 2):
            side, center = images.shape[axis], next(numbers).view(-1, 1, 1, 1)
            place = (torch.arange(side, device=images.device) + 0.5) / side
            cut = cut & ((place.view((1, 1, 1, -1) if axis == 3 else (1, 1, -1, 1)) - center).abs() < 0.25)
        return torch.where(cut, 0.0, images)


def normal(uniform: Tensor) -> Tensor:
    """Maps uniform numbers in [0, 1) to standard normal ones; the result is finite.

    Not by `torch.special.ndtri`, which has no Metal kernel. In float32 nothing is rounded before `erfinv`.
    """
    return math.sqrt(2.0) * (2 * uniform.clamp(2**-20, 1 - 2**-20) - 1).erfinv()
