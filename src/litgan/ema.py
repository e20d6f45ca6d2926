"""The generator's exponential moving average, with its half-life counted in images."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from litgan.schedules import Schedule, largest, value_at


class EMA(nn.Module):
    """A running average of a module's parameters; its buffers are copied.

        average <- lerp(source, average, 0.5 ** (images / halflife))

    The half-life is at most `rampup * images_seen` (Karras et al. 2020, StyleGAN2, `ema_rampup`), so that
    early averages forget the random start. Averages of buffers (power iterations, counters) make no sense.

    Args:
        source: the module to average; it is copied, on its own device and in its own precision.
        halflife: images after which an old value weighs half.
        rampup: fraction of `images_seen` that bounds the half-life; 0 for no bound.

    Raises:
        ValueError: if one of these is negative or not finite.
    """

    def __init__(self, source: nn.Module, halflife: float | Schedule, rampup: float = 0.05) -> None:
        super().__init__()
        largest("ema_halflife", halflife)
        largest("ema_rampup", rampup)
        self.average = copy.deepcopy(source).requires_grad_(False).eval()
        self.halflife, self.rampup = halflife, rampup

    def decay(self, images_seen: int, images: int) -> float:
        """The weight that the old average keeps after `images` more images."""
        halflife = value_at(self.halflife, images_seen)
        if self.rampup > 0:
            halflife = min(halflife, self.rampup * images_seen)
        return 0.5 ** (images / max(halflife, 1e-8))

    @torch.no_grad()
    def update(self, source: nn.Module, images_seen: int, images: int) -> None:
        """Moves the average towards `source`, after `images` images since the last update."""
        averages: list[Tensor] = list(self.average.parameters())
        torch._foreach_lerp_(averages, [*source.parameters()], 1.0 - self.decay(images_seen, images))
        if buffers := list(source.buffers()):
            torch._foreach_copy_(list(self.average.buffers()), buffers)

    def train(self, mode: bool = True) -> EMA:
        """Stays in evaluation mode: an average is never trained."""
        return super().train(False)
