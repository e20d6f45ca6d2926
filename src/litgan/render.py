"""Rendering: pictures and files of decoded samples, and curves of a run's scalars.

A picture is a uint8 tensor [H, W, 3].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from litgan.files import atomic_write

GAP = 2  # pixels between tiles
FONT_SIZE = 13  # pixels, of captions
SMALLEST_TILE = 64  # pixels; smaller images are enlarged, each pixel to a square
PLANE = 480  # pixels, side of a scatter plot
POINT_COLOR, ARROW_COLOR = (31, 119, 180), (214, 39, 40)


class SampleBatch(ABC):
    """A batch of decoded samples."""

    caption: ClassVar[str] = ""  # explains the picture of `render_with_grad`

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def render(self, columns: int | None = None) -> Tensor:
        """All samples in one picture."""

    @abstractmethod
    def render_with_grad(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """A picture of the samples with the feedback of each, [N, *sample_shape]."""

    def save(self, stem: Path, picture: Tensor | None = None) -> list[Path]:
        """Writes `<stem>.png`, the given picture or `render()`; subclasses add files of their own."""
        return [save_png(self.render() if picture is None else picture, stem.with_name(stem.name + ".png"))]

    def wandb_media(self) -> dict[str, Any]:
        """What W&B shows besides the picture: kind -> W&B object, logged as <name>/<kind>.

        Called only if W&B logs the run: import wandb inside.
        """
        return {}


def is_image(samples: Tensor) -> bool:
    """Whether these are floats [N, 1 or 3, H, W], which `ImageBatch` draws."""
    return samples.ndim == 4 and samples.shape[1] in (1, 3) and samples.is_floating_point()


class ImageBatch(SampleBatch):
    """Images, uint8 [N, C, H, W] with C = 1 (gray) or 3 (RGB)."""

    caption = (
        "Below each sample is its feedback: the generator is pushed to darken what is red and to brighten "
        "what is blue. Each sample has its own scale."
    )

    def __init__(self, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            raise ValueError(
                f"Images are uint8 of shape [N, 1 or 3, H, W], not {pixels.dtype} of {tuple(pixels.shape)}: "
                "decode the samples first."
            )
        self.pixels = pixels.cpu()

    @classmethod
    def from_unit_range(cls, samples: Tensor) -> ImageBatch:
        """Of samples in [-1, 1], clipped, to the nearest of 256 levels."""
        return cls((samples.detach().float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8))

    def __len__(self) -> int:
        return len(self.pixels)

    def render(self, columns: int | None = None) -> Tensor:
        return tile(to_tiles(self.pixels), columns)

    def save(self, stem: Path, picture: Tensor | None = None) -> list[Path]:
        """A single image keeps its size."""
        if len(self) == 1 and picture is None:
            picture = self.pixels[0].expand(3, -1, -1).permute(1, 2, 0)
        return super().save(stem, picture)

    def render_with_grad(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        return tile_pairs(to_tiles(self.pixels), to_tiles(signed_heat(feedback)), columns)


class PointBatch(SampleBatch):
    """Points of the plane, float [N, 2], drawn on the square from -`limit` to `limit`."""

    caption = "Lines: where the feedback pushes each point; the longest is the strongest."

    def __init__(self, points: Tensor, limit: float) -> None:
        self.points, self.limit = points.detach().float().cpu(), limit

    def __len__(self) -> int:
        return len(self.points)

    def render(self, columns: int | None = None) -> Tensor:
        return self._scatter(None)

    def render_with_grad(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """A line from each point in the direction of descent on the generator's loss."""
        push = -feedback.float().cpu() / feedback.norm(dim=1).max().clamp_min(1e-30).cpu()
        return self._scatter(self.points + 0.2 * self.limit * push)

    def _scatter(self, ends: Tensor | None) -> Tensor:
        canvas = Image.new("RGB", (PLANE, PLANE), "white")
        draw, points = ImageDraw.Draw(canvas), self._pixels(self.points)
        for x, y in points:
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=POINT_COLOR)
        if ends is not None:
            for start, end in zip(points, self._pixels(ends), strict=True):
                draw.line((*start, *end), fill=ARROW_COLOR)
        return to_tensor(canvas)

    def _pixels(self, points: Tensor) -> list[list[float]]:
        plane = (points / self.limit * torch.tensor([1.0, -1.0]) + 1.0) / 2.0 * PLANE
        return plane.clamp(-9, PLANE + 9).tolist()


def signed_heat(values: Tensor) -> Tensor:
    """Values [N, C, H, W] as uint8 [N, 3, H, W] on the CPU: red above zero, blue below, white at zero.

    Each sample is scaled by its own largest absolute value: the picture shows where, not how much.
    """
    flat = values.float().cpu().mean(1, keepdim=True)
    flat = flat / flat.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30)
    red, blue = 1.0 - (-flat).clamp_min(0.0), 1.0 - flat.clamp_min(0.0)
    return (torch.cat([red, torch.minimum(red, blue), blue], dim=1) * 255.0).round().to(torch.uint8)


def to_tiles(pixels: Tensor) -> Tensor:
    """uint8 [N, 1 or 3, H, W] as tiles [N, H, W, 3], enlarged to `SMALLEST_TILE` if they are smaller."""
    scale = max(1, SMALLEST_TILE // pixels.shape[-1])
    enlarged = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return enlarged.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)


def tile(tiles: Tensor, columns: int | None = None) -> Tensor:
    """Tiles [N, H, W, 3] in rows of `columns` (default: about a square), with white gaps."""
    count, height, width, _ = tiles.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    cells = torch.full((rows * columns, height + GAP, width + GAP, 3), 255, dtype=torch.uint8)
    cells[:count, :height, :width] = tiles
    grid = cells.unflatten(0, (rows, columns)).transpose(1, 2)
    return grid.reshape(rows * (height + GAP), columns * (width + GAP), 3)[:-GAP, :-GAP]


def tile_pairs(tiles: Tensor, heat: Tensor, columns: int | None = None) -> Tensor:
    """Rows of tiles [N, H, W, 3], by default one row, each above the row of their heat maps [N, h, w, 3]."""
    columns = columns or len(tiles)
    pairs = zip(tiles.split(columns), heat.split(columns), strict=True)
    return stack([tile(row, columns) for pair in pairs for row in pair], gap=GAP)


def stack(pictures: list[Tensor], gap: int = 4 * GAP) -> Tensor:
    """Pictures of any size one below the other, on white."""
    width = max(picture.shape[1] for picture in pictures)
    height = sum(picture.shape[0] for picture in pictures) + gap * (len(pictures) - 1)
    canvas, top = torch.full((height, width, 3), 255, dtype=torch.uint8), 0
    for picture in pictures:
        canvas[top : top + picture.shape[0], : picture.shape[1]] = picture
        top += picture.shape[0] + gap
    return canvas


def beside(pictures: Sequence[Tensor], gap: int = GAP) -> Tensor:
    """Pictures of any size side by side, on white."""
    return stack([picture.transpose(0, 1) for picture in pictures], gap).transpose(0, 1)


def tile_groups(groups: Sequence[Sequence[Tensor]], columns: int) -> Tensor:
    """Groups of pictures, those of a group side by side, `columns` groups a row."""
    tiles = [beside(group) for group in groups]
    return stack([beside(tiles[at : at + columns], 4 * GAP) for at in range(0, len(tiles), columns)])


def add_caption(picture: Tensor, sentence: str) -> Tensor:
    """The picture with a sentence, if there is one, below it, broken into lines of the picture's width."""
    if not sentence:
        return picture
    font, width = ImageFont.load_default(FONT_SIZE), picture.shape[1]
    lines = [""]
    for word in sentence.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    canvas = Image.new("RGB", (width, round(1.4 * FONT_SIZE * len(lines))), "white")
    ImageDraw.Draw(canvas).multiline_text((0, 0), "\n".join(lines), "black", font, spacing=0.25 * FONT_SIZE)
    return stack([picture, to_tensor(canvas)], gap=2 * GAP)


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image as a picture."""
    rgb = image.convert("RGB")
    return torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3)


def save_png(picture: Tensor, path: Path) -> Path:
    """Writes a picture, atomically."""
    with atomic_write(path) as partial:
        Image.fromarray(picture.cpu().numpy()).save(partial, format="PNG")
    return path


def save_gif(pictures: list[Tensor], path: Path) -> Path:
    """Writes pictures of one size as an endless animation, atomically."""
    first, *others = [Image.fromarray(picture.cpu().numpy()) for picture in pictures]
    with atomic_write(path) as partial:
        first.save(partial, format="GIF", save_all=True, append_images=others, duration=80, loop=0)
    return path


def draw_curves(rows: list[dict[str, float]], panels: Sequence[Sequence[str]]) -> bytes:
    """Scalars over `images_seen` as a PNG, the keys of a panel on the same axes.

    The y axis is logarithmic if all values are positive and span more than a factor of ten.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    height, end = math.ceil(len(panels) / 3), max([1.0, *(float(row["images_seen"]) for row in rows)])
    figure = Figure(figsize=(11, 3 * height), layout="constrained")
    for place, keys in enumerate(panels, start=1):
        axes = figure.add_subplot(height, 3, place)
        drawn: list[float] = []
        for key in keys:
            known = [row for row in rows if abs(row.get(key, math.inf)) < 1e100]
            times, values = [float(row["images_seen"]) for row in known], [row[key] for row in known]
            axes.plot(times, values, marker="." if len(known) < 50 else "", label=key[:40])
            drawn += values
        log = bool(drawn) and 0 < 10 * min(drawn) < max(drawn)
        axes.set(xlabel="images_seen", yscale="log" if log else "linear", xlim=(0, end))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if keys:
            for text in axes.legend(frameon=False, fontsize=8).get_texts():
                text.set_parse_math(False)  # a key may hold a $
    content = BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
