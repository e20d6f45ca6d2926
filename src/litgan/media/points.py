"""Points of a plane: a scatter plot."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from litgan.media.base import SampleBatch, to_tensor

PLANE = 480  # pixels, the side of a drawn plane


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
