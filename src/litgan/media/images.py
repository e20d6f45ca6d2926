"""Images: a grid of tiles."""

from __future__ import annotations

import torch
from torch import Tensor

from litgan.media.base import GAP, SampleBatch, stack, tile

SMALLEST_TILE = 64  # pixels; smaller images are enlarged, each pixel to a square


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
