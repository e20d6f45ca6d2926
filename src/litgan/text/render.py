"""Rendered text: an image of lines, a text file and a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from litgan.files import atomic_write
from litgan.render import SampleBatch, signed_heat, to_tensor

FONT_SIZE = 16  # pixels


class TextBatch(SampleBatch):
    """Windows of text, given as tokens, integers [N, T], of an alphabet.

    Args:
        tokens: of the windows.
        alphabet: the character, or the piece of text, of each token.
        length: characters of a line, which is cut or filled with spaces; None: one for each token.

    Raises:
        ValueError: a token is outside the alphabet.
    """

    caption = (
        "The background of each character shows the gradient: red pushes the generator to another character, "
        "blue to keep this one. Each line has its own scale."
    )

    def __init__(self, tokens: Tensor, alphabet: Sequence[str], length: int | None = None) -> None:
        if tokens.numel() and int(tokens.max()) >= len(alphabet):
            raise ValueError(
                f"Token {int(tokens.max())} is outside the alphabet of {len(alphabet)} characters: decode "
                "the samples with the data module that they were trained on."
            )
        self.tokens, self.alphabet = tokens.cpu(), alphabet
        self.length = length or tokens.shape[1]
        texts = ["".join(alphabet[token] for token in row) for row in self.tokens.tolist()]
        self.lines = [text[: self.length].ljust(self.length) for text in texts]

    def __len__(self) -> int:
        return len(self.lines)

    def render(self, columns: int | None = None) -> Tensor:
        """One sample per line; `columns` is ignored."""
        return self._render(None)

    def render_with_grad(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """The lines on backgrounds colored by the gradient of each character minus the mean of all others.

        Red pushes the generator to another character, blue to keep this one.
        """
        feedback = feedback.detach().float().cpu()
        chosen = feedback.gather(1, self.tokens[:, None]).squeeze(1)
        others = (feedback.sum(1) - chosen) / max(1, feedback.shape[1] - 1)
        colors = signed_heat((chosen - others)[:, None, None])[:, :, 0].transpose(1, 2)
        return self._render(torch.stack([row[at] for row, at in zip(colors, self._places(), strict=True)]))

    def save(self, stem: Path, picture: Tensor | None = None) -> list[Path]:
        """Writes the picture and `<stem>.txt`, UTF-8, one sample per line."""
        written = super().save(stem, picture)
        path = stem.with_name(stem.name + ".txt")
        with atomic_write(path) as partial:
            partial.write_text("".join(f"{line}\n" for line in self.lines), encoding="utf-8", newline="\n")
        return [*written, path]

    def wandb_media(self) -> dict[str, Any]:
        import wandb

        return {"text": wandb.Table(columns=["text"], data=[[line] for line in self.lines])}

    def _places(self) -> Iterator[Tensor]:
        """Of each line, the place of the token that each character comes from, int64 [length]."""
        last = self.tokens.shape[1] - 1
        for row in self.tokens.tolist():
            places = [place for place, token in enumerate(row) for _ in self.alphabet[token]][: self.length]
            yield torch.tensor(places + [last] * (self.length - len(places)))

    def _render(self, backgrounds: Tensor | None) -> Tensor:
        """The lines in cells of equal size; `backgrounds`, uint8 [N, length, 3], are their colors."""
        font, width, height = font_and_cell()
        rows, columns = len(self.tokens), self.length
        if backgrounds is None:
            backgrounds = torch.full((rows, columns, 3), 255, dtype=torch.uint8)
        backgrounds = backgrounds.repeat_interleave(height, 0).repeat_interleave(width, 1)
        canvas = Image.fromarray(backgrounds.numpy())
        draw = ImageDraw.Draw(canvas)
        for row, line in enumerate(self.lines):
            for column, character in enumerate(line):
                draw.text((column * width + width // 2, row * height), character, "black", font, anchor="ma")
        return to_tensor(canvas)


@lru_cache(maxsize=1)
def font_and_cell() -> tuple[ImageFont.ImageFont | ImageFont.FreeTypeFont, int, int]:
    """Pillow's own font, and the width and height of a character's cell in pixels."""
    font = ImageFont.load_default(FONT_SIZE)
    return font, round(font.getlength("W")), round(1.4 * FONT_SIZE)
