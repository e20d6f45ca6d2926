"""Several discriminators as one, each at half the resolution of the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.condition import Condition, probe


class MultiScale(nn.Module):
    """Images [B, C, H, W] to the logits [B, K] of several discriminators; Wang et al. 2018 (pix2pixHD), 3.2.

    The first one gets the samples and the condition. Each further one gets the samples, and a condition that
    is an image of their size, at half the sides: averages of 3 x 3 pixels. `logit_counts` are the numbers of
    logits of each, so that the adversarial loss is the sum of their means.

    Args:
        sample_shape: [C, H, W].
        condition: 0, n classes, or the shape of one condition.
        discriminators: each is called with (sample_shape, condition) at its resolution.
        halve: false to give all of them the whole samples.

    Raises:
        ValueError: there is no discriminator.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition = 0,
        *,
        discriminators: Sequence[Callable[[tuple[int, ...], Condition], nn.Module]],
        halve: bool = True,
    ) -> None:
        super().__init__()
        if not discriminators:
            raise ValueError("MultiScale has no discriminators: give at least one.")
        self.halves_samples = halve
        self.halves_condition = (
            halve and not isinstance(condition, int) and tuple(condition[1:]) == tuple(sample_shape[1:])
        )
        self.discriminators, counts = nn.ModuleList(), list[int]()
        for make in discriminators:
            made: Any = make(sample_shape, condition)
            self.discriminators.append(made)
            counts += getattr(made, "logit_counts", [count_logits(made, sample_shape, condition)])
            if halve:
                sample_shape = halved(sample_shape)
            if self.halves_condition:
                condition = halved(condition)  # type: ignore[arg-type]
        self.logit_counts = tuple(counts)
        self.uses_batch_statistics = any(
            getattr(part, "uses_batch_statistics", False) for part in self.discriminators
        )

    def forward(self, samples: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.cat([part(*given) for part, *given in self._scales(samples, condition)], 1)

    def features(self, samples: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """Those of all discriminators, one after the other."""
        return [maps for part, *given in self._scales(samples, condition) for maps in part.features(*given)]

    def _scales(
        self, samples: Tensor, condition: Tensor | None
    ) -> Iterator[tuple[Any, Tensor, Tensor | None]]:
        """Each discriminator with its samples and condition."""
        for part in self.discriminators:
            yield part, samples, condition
            if self.halves_samples:
                samples = halve_sides(samples)
            if self.halves_condition and condition is not None:
                condition = halve_sides(condition)


def halve_sides(maps: Tensor) -> Tensor:
    """Averages of maps [B, C, H, W] at half the sides, rounded up."""
    return F.avg_pool2d(maps, 3, stride=2, padding=1, count_include_pad=False)


def halved(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *(-(-side // 2) for side in shape[1:]))


@torch.no_grad()
def count_logits(discriminator: nn.Module, sample_shape: tuple[int, ...], condition: Condition) -> int:
    """Number of logits of one sample."""
    device = next(discriminator.parameters()).device
    logits = discriminator.eval()(torch.zeros(1, *sample_shape, device=device), probe(condition, 1, device))
    discriminator.train()
    return logits.shape[1]
