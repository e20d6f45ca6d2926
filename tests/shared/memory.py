"""Networks that are too large for the memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from litgan.networks import MLPDiscriminator


class LimitedDiscriminator(MLPDiscriminator):
    """In evaluation mode it has memory for three samples, as on a GPU."""

    def forward(self, samples: Tensor, condition: Tensor | None = None) -> Tensor:
        if not self.training and len(samples) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1024.00 GiB.")
        return super().forward(samples, condition)


def check_halving(
    fit: Callable[[Callable[..., nn.Module]], object], rows: list[dict[str, float]], key: str
) -> None:
    """A fit logs the same with a discriminator whose memory is too small for the callback's batch.

    Args:
        fit: of a GAN with the discriminator that this factory makes.
        rows: what fits log.
        key: that the callback logs.
    """
    for network in (MLPDiscriminator, LimitedDiscriminator):
        fit(partial(network, widths=(16,)))
    half = len(rows) // 2
    assert any(key in row for row in rows[half:])
    for whole, parts in zip(rows[:half], rows[half:], strict=True):
        assert parts == pytest.approx(whole, rel=1e-4, abs=1e-6)
