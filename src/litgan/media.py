"""Media: what a data module's `decode` makes of samples, ready for people: pictures and files."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

SMALLEST_TILE = 64  # pixels; smaller images are enlarged, each pixel to a square
GAP = 2  # pixels between tiles
PLANE = 480  # pixels, the side of a drawn plane


class Media(ABC):
    """A batch of decoded samples."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def picture(self, columns: int | None = None) -> Tensor:
        """All samples in one picture, uint8 [height, width, 3]."""

    @abstractmethod
    def criticised(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """The samples with the feedback of each, [N, *sample_shape], uint8 [height, width, 3]."""

    def save(self, stem: Path, picture: Tensor | None = None) -> list[Path]:
        """Writes `<stem>.png` (the given picture or the media's own) and what else the medium needs."""
        return [save_png(self.picture() if picture is None else picture, stem.with_name(stem.name + ".png"))]


class Images(Media):
    """Pixels, uint8 [N, C, H, W] with C = 1 (grey) or 3 (RGB)."""

    def __init__(self, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            raise ValueError(
                f"Images are uint8 of shape [N, 1 or 3, H, W], not {pixels.dtype} of {tuple(pixels.shape)}: "
                "decode the samples first."
            )
        self.pixels = pixels.cpu()

    def __len__(self) -> int:
        return len(self.pixels)

    def picture(self, columns: int | None = None) -> Tensor:
        scale = max(1, SMALLEST_TILE // self.pixels.shape[-1])
        tiles = self.pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        return tile(tiles.expand(-1, 3, -1, -1).permute(0, 2, 3, 1), columns)

    def criticised(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """Rows of samples, each above its feedback: the generator is pushed to darken what is red
        and to brighten what is blue."""
        columns, rgb = columns or len(self), self.pixels.expand(-1, 3, -1, -1)
        pairs = zip(rgb.split(columns), signed_heat(feedback.cpu()).split(columns), strict=True)
        return stack([Images(rows).picture(columns) for pair in pairs for rows in pair], gap=GAP)


class Points(Media):
    """Points of a plane, float [N, 2], shown on the square of half-width `limit` around the origin."""

    def __init__(self, points: Tensor, limit: float) -> None:
        self.points, self.limit = points.detach().float().cpu(), limit

    def __len__(self) -> int:
        return len(self.points)

    def picture(self, columns: int | None = None) -> Tensor:
        return to_tensor(self._drawn())

    def criticised(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """An arrow from each point to where descent on the generator's loss would push it."""
        canvas = self._drawn()
        draw = ImageDraw.Draw(canvas)
        push = -feedback.float().cpu() / feedback.norm(dim=1).max().clamp_min(1e-30).cpu()
        ends = self._pixels(self.points + 0.2 * self.limit * push)
        for start, end in zip(self._pixels(self.points).tolist(), ends.tolist(), strict=True):
            draw.line((*start, *end), fill=(214, 39, 40))
        return to_tensor(canvas)

    def _pixels(self, points: Tensor) -> Tensor:
        plane = (points / self.limit * torch.tensor([1.0, -1.0]) + 1.0) / 2.0 * PLANE
        return plane.clamp(-9, PLANE + 9)

    def _drawn(self) -> Image.Image:
        canvas = Image.new("RGB", (PLANE, PLANE), "white")
        draw = ImageDraw.Draw(canvas)
        for x, y in self._pixels(self.points).tolist():
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(31, 119, 180))
        return canvas


def tile(tiles: Tensor, columns: int | None = None) -> Tensor:
    """Tiles [N, H, W, 3] side by side with white gaps, `columns` a row (default: about a square)."""
    count, height, width, _ = tiles.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = torch.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, dtype=torch.uint8)
    for index, one in enumerate(tiles):
        top, left = index // columns * (height + GAP), index % columns * (width + GAP)
        grid[top : top + height, left : left + width] = one
    return grid


def stack(pictures: list[Tensor], gap: int = 4 * GAP) -> Tensor:
    """Pictures [H, W, 3] of any size one below the other, on white."""
    width = max(picture.shape[1] for picture in pictures)
    height = sum(picture.shape[0] for picture in pictures) + gap * (len(pictures) - 1)
    canvas, top = torch.full((height, width, 3), 255, dtype=torch.uint8), 0
    for picture in pictures:
        canvas[top : top + picture.shape[0], : picture.shape[1]] = picture
        top += picture.shape[0] + gap
    return canvas


def signed_heat(values: Tensor) -> Tensor:
    """Values [N, C, H, W] as uint8 [N, 3, H, W]: red above zero, blue below, white at zero.

    Each sample is scaled by its own largest absolute value, so the picture shows where, not how much.
    """
    flat = values.float().mean(1, keepdim=True)
    flat = flat / flat.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30)
    red, blue = 1.0 - (-flat).clamp_min(0.0), 1.0 - flat.clamp_min(0.0)
    return (torch.cat([red, torch.minimum(red, blue), blue], dim=1) * 255.0).round().to(torch.uint8)


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image as uint8 [H, W, 3]."""
    rgb = image.convert("RGB")
    return torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3)


def save_png(picture: Tensor, path: Path) -> Path:
    """Writes a picture [H, W, 3] whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    Image.fromarray(picture.cpu().numpy()).save(partial, format="PNG")
    os.replace(partial, path)
    return path


def save_gif(pictures: list[Tensor], path: Path, milliseconds: int = 80) -> Path:
    """Writes pictures [H, W, 3] of one size as an endless animation, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(picture.cpu().numpy()) for picture in pictures]
    partial = path.with_name(f".{path.name}.partial")
    first.save(partial, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    os.replace(partial, path)
    return path
