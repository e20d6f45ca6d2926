"""Memory that is too small: batches that halve by themselves, and errors that say what to change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")

OUT_OF_MEMORY = (
    "out of memory|can't allocate memory|ALLOC_FAILED"  # of CUDA, XPU and MPS; of the CPU; of cuBLAS
)


class AutoBatchSize:
    """Calls a function on ranges; where the memory is too small, halves them, also those of later calls."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size

    def __call__(self, function: Callable[[int, int], Tensor], count: int) -> Tensor:
        """Concatenates `function(start, size)` over 0 to `count`; raises as `parts`."""
        return torch.cat(self.parts(function, count))

    def parts(self, function: Callable[[int, int], _T], count: int) -> list[_T]:
        """`function(start, size)` of each range of 0 to `count`.

        Raises RuntimeError: the memory is too small for a single item.
        """
        results: list[_T] = []
        start = 0
        while start < count or not results:
            size = min(self.size or count, count - start)
            try:
                results.append(function(start, size))
                start += size
            except RuntimeError as error:
                if size <= 1 or not is_out_of_memory(error):
                    raise
                self.size = (size + 1) // 2
        return results


def is_out_of_memory(error: RuntimeError) -> bool:
    return bool(re.search(OUT_OF_MEMORY, str(error)))


@contextmanager
def explain_lack(what: str, remedy: str) -> Iterator[None]:
    """Raises a RuntimeError of one sentence where the memory is too small in this block."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise RuntimeError(f"The memory is too small for {what}: {remedy}.") from error
