"""The generator's exponential moving average, with its half-life counted in images."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from litgan.schedules import Schedule, value_at


class EMA(nn.Module):
    """A running average of a module's parameters; its buffers are copied.

        average <- lerp(source, average, 0.5 ** (images / halflife))

    The half-life ramps up with the run, `min(halflife, rampup * images_seen)` (Karras et al.
    2020, StyleGAN2, `ema_rampup`), so that early averages forget the random start. Buffers are
    copied since averaging the state of a power iteration, or counters, breaks them.

    Args:
        source: the module to average; it is copied, on its own device and in its own precision.
        halflife: images after which an old value weighs half.
        rampup: share of `images_seen` that bounds the half-life; 0 turns the ramp off.
    """

    def __init__(self, source: nn.Module, halflife: float | Schedule, rampup: float = 0.05) -> None:
        super().__init__()
        self.average = copy.deepcopy(source).requires_grad_(False).eval()
        self.has_buffers = next(source.buffers(), None) is not None
        self.halflife, self.rampup = halflife, rampup
        self.followed: tuple[nn.Module, list[Tensor], list[Tensor]] | None = None  # source, weights, ours

    def decay(self, *, images_seen: int, images: int) -> float:
        """The weight that the old average keeps after `images` more images."""
        halflife = value_at(self.halflife, images_seen)
        if self.rampup > 0:
            halflife = min(halflife, self.rampup * images_seen)
        return 0.5 ** (images / max(halflife, 1e-8))

    @torch.no_grad()
    def update(self, source: nn.Module, *, images_seen: int, images: int) -> None:
        """Moves the average towards `source`, after `images` images since the last update."""
        decay = self.decay(images_seen=images_seen, images=images)
        if self.followed is None or self.followed[0] is not source:  # a walk costs more than the lerp
            self.followed = source, list(source.parameters()), list(self.average.parameters())
        _, sources, averages = self.followed
        torch._foreach_lerp_(averages, sources, 1.0 - decay)
        if self.has_buffers:
            torch._foreach_copy_(list(self.average.buffers()), list(source.buffers()))

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Samples of the averaged generator."""
        return self.average(latents, labels)

    def train(self, mode: bool = True) -> EMA:
        """Stays in evaluation mode: an average is never trained."""
        return super().train(False)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"followed": None}  # a copy follows another source
