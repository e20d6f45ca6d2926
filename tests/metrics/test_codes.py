"""Codebook use of a tokenizer, over all samples that are measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shared.pairs import Pairs
from torch import Tensor, nn

from litgan.metrics import evaluate


class Tokenizer(nn.Module):
    """Its first stage uses another code of eight in each pass, its second one always the same."""

    passes = 0

    def forward(self, size: int) -> Tensor:
        self.passes += 1
        return torch.rand(size, 1, 8, 8)

    @property
    def code_counts(self) -> Tensor:
        return torch.stack([7.0 * torch.eye(8)[self.passes % 8], 3.0 * torch.eye(8)[0]])


@pytest.mark.parametrize(("batch_size", "passes"), [(8, 5), (10, 4)])
def test_perplexity_is_that_of_the_codes_of_all_passes(batch_size: int, passes: int) -> None:
    made = Tokenizer()

    def measure(**options: Any) -> dict[str, float]:
        sample = lambda first, size: made(size)  # noqa: E731
        return evaluate(sample, Pairs(), "digits", count=40, batch_size=batch_size, **options).values

    found = measure(generator=made)
    assert found["metric/perplexity"] == pytest.approx((passes + 1) / 2)
    assert "metric/perplexity" not in measure()
    assert "metric/perplexity" not in measure(generator=nn.Linear(1, 1))
