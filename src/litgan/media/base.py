"""What all media share: the contract, and how pictures are put together and written."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from litgan.files import atomic_write

GAP = 2  # pixels between tiles
CAPTION = 13  # pixels: height of the letters below a picture


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
