"""Rendering: pictures and files of decoded samples, and curves of a run's scalars."""

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
CAPTION = 13  # pixels: height of the letters below a picture
SMALLEST_TILE = 64  # pixels; smaller images are enlarged, each pixel to a square
PLANE = 480  # pixels, the side of a drawn plane


class SampleBatch(ABC):
    """A batch of decoded samples."""

    caption: ClassVar[str] = ""  # how to read what `render_with_grad` draws, in a sentence or two

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def render(self, columns: int | None = None) -> Tensor:
        """All samples in one picture, uint8 [height, width, 3]."""

    @abstractmethod
    def render_with_grad(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """The samples with the feedback of each, [N, *sample_shape], uint8 [height, width, 3]."""

    def save(self, stem: Path, picture: Tensor | None = None) -> list[Path]:
        """Writes `<stem>.png` (the given picture or the media's own) and what else the medium needs."""
        return [save_png(self.render() if picture is None else picture, stem.with_name(stem.name + ".png"))]

    def wandb_media(self) -> dict[str, Any]:
        """What W&B shows besides the picture: kind -> W&B object, logged as <name>/<kind>.

        Called only where W&B logs: import it inside.
        """
        return {}


class ImageBatch(SampleBatch):
    """Pixels, uint8 [N, C, H, W] with C = 1 (gray) or 3 (RGB)."""

    caption = (
        "Below each sample the feedback that it gets: the generator is pushed to darken what is red and to "
        "brighten what is blue. Each has its own scale."
    )

    def __init__(self, pixels: Tensor) -> None:
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            raise ValueError(
                f"Images are uint8 of shape [N, 1 or 3, H, W], not {pixels.dtype} of {tuple(pixels.shape)}: "
                "decode the samples first."
            )
        self.pixels = pixels.cpu()

    def __len__(self) -> int:
        return len(self.pixels)

    def render(self, columns: int | None = None) -> Tensor:
        scale = max(1, SMALLEST_TILE // self.pixels.shape[-1])
        tiles = self.pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        return tile(tiles.expand(-1, 3, -1, -1).permute(0, 2, 3, 1), columns)

    def render_with_grad(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """Rows of samples, each above its feedback: the generator is pushed to darken what is red
        and to brighten what is blue."""
        columns, rgb = columns or len(self), self.pixels.expand(-1, 3, -1, -1)
        pairs = zip(rgb.split(columns), signed_heat(feedback.cpu()).split(columns), strict=True)
        return stack([ImageBatch(rows).render(columns) for pair in pairs for rows in pair], gap=GAP)


def signed_heat(values: Tensor) -> Tensor:
    """Values [N, C, H, W] as uint8 [N, 3, H, W]: red above zero, blue below, white at zero.

    Each sample is scaled by its own largest absolute value, so the picture shows where, not how much.
    """
    flat = values.float().mean(1, keepdim=True)
    flat = flat / flat.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30)
    red, blue = 1.0 - (-flat).clamp_min(0.0), 1.0 - flat.clamp_min(0.0)
    return (torch.cat([red, torch.minimum(red, blue), blue], dim=1) * 255.0).round().to(torch.uint8)


class PointBatch(SampleBatch):
    """Points of a plane, float [N, 2], shown on the square of half-width `limit` around the origin."""

    caption = "Lines: where the feedback pushes each point; the longest is the strongest."

    def __init__(self, points: Tensor, limit: float) -> None:
        self.points, self.limit = points.detach().float().cpu(), limit

    def __len__(self) -> int:
        return len(self.points)

    def render(self, columns: int | None = None) -> Tensor:
        return to_tensor(self._drawn())

    def render_with_grad(self, feedback: Tensor, columns: int | None = None) -> Tensor:
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


def add_caption(picture: Tensor, sentence: str) -> Tensor:
    """A picture [H, W, 3] with a sentence, if there is one, below it, broken where it would be wider."""
    if not sentence:
        return picture
    font, width = ImageFont.load_default(CAPTION), picture.shape[1]
    lines = [""]
    for word in sentence.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    text = "\n".join(lines)
    canvas = Image.new("RGB", (width, round(1.4 * CAPTION * len(lines))), "white")
    ImageDraw.Draw(canvas).multiline_text((0, 0), text, "black", font, spacing=0.25 * CAPTION)
    return stack([picture, to_tensor(canvas)], gap=2 * GAP)


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image as uint8 [H, W, 3]."""
    rgb = image.convert("RGB")
    return torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3)


def save_png(picture: Tensor, path: Path) -> Path:
    """Writes a picture [H, W, 3] whole or not at all."""
    with atomic_write(path) as partial:
        Image.fromarray(picture.cpu().numpy()).save(partial, format="PNG")
    return path


def save_gif(pictures: list[Tensor], path: Path, milliseconds: int = 80) -> Path:
    """Writes pictures [H, W, 3] of one size as an endless animation, whole or not at all."""
    first, *others = [Image.fromarray(picture.cpu().numpy()) for picture in pictures]
    with atomic_write(path) as partial:
        first.save(partial, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return path


def draw_curves(rows: list[dict[str, float]], panels: Sequence[Sequence[str]]) -> bytes:
    """Scalars over `images_seen` as a PNG, the keys of a panel on the same axes.

    The y axis is logarithmic where all values are positive and span more than a factor of ten.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    height, end = math.ceil(len(panels) / 3), max([1.0, *(float(row["images_seen"]) for row in rows)])
    figure = Figure(figsize=(11, 3 * height), layout="constrained")
    FigureCanvasAgg(figure)
    for place, keys in enumerate(panels, start=1):
        axes = figure.add_subplot(height, 3, place)
        drawn: list[float] = []
        for key in keys:
            points = [
                (float(row["images_seen"]), row[key]) for row in rows if abs(row.get(key, math.inf)) < 1e100
            ]
            moments, values = [at for at, _ in points], [value for _, value in points]
            axes.plot(moments, values, marker="." if len(points) < 50 else "", label=key[:40])
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
