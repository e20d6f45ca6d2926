"""What a rank holds and sends in a measurement. `test_evaluate` shows that ranks get the numbers of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from litgan.metrics import FeatureExtractor
from litgan.metrics.statistics import extract_features


class Pixels(FeatureExtractor):
    name, dimension = "pixels", 64

    def features(self, samples: Tensor) -> Tensor:
        return samples.flatten(1)


class Written(TorchDispatchMode):
    """Adds up the bytes of all results."""

    total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.total += sum(one.nbytes for one in tree_leaves(result) if isinstance(one, Tensor))
        return result


def written_by_rank_zero(world_size: int) -> int:
    """Bytes, for one batch; the other ranks are not there, and add nothing."""
    dist.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
    with Written() as written:
        extract_features(
            [(torch.zeros(20, 1, 8, 8), None)], Pixels(), neighbours_count=40, batch_size=20,
            device=torch.device("cpu"), rank=0, world_size=world_size,
        )  # fmt: skip
    dist.destroy_process_group()
    return written.total


def test_what_a_rank_holds_does_not_grow_with_their_number() -> None:
    assert written_by_rank_zero(64) == pytest.approx(written_by_rank_zero(8), rel=0.05)
