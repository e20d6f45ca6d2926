"""Codebook use of a tokenizer, over all samples that are measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import workers
from shared.pairs import Pairs
from shared.ranks import launch
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


def measure_few(folder: Path) -> None:
    """Three batches over the ranks: of four, the last one makes no sample."""
    dist.init_process_group("gloo")
    made = Tokenizer()
    made.passes = workers.RANK  # other codes than on other ranks
    values = evaluate(
        lambda first, size: made(size), Pairs(), "digits", count=24, batch_size=8, generator=made,
        cache_dir=folder / "cache", rank=workers.RANK, world_size=workers.WORLD,
    ).values  # fmt: skip
    torch.save(values["metric/perplexity"], folder / f"{workers.RANK}.pt")
    dist.destroy_process_group()


@pytest.mark.spawn
def test_perplexity_is_that_of_all_ranks_though_one_makes_no_sample(tmp_path: Path) -> None:
    launch(__file__, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(4)]
    assert found == pytest.approx([(3 + 1) / 2] * 4)


if __name__ == "__main__":
    workers.in_turn(4, measure_few, Path(sys.argv[1]))
