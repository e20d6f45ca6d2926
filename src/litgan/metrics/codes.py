"""How many of a tokenizer's codes are in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from litgan.networks.quantizers import perplexity_of


class CodebookUse:
    """Counts of codes over forward passes of a generator that offers `code_counts`, [stages, num_codes]."""

    def __init__(self) -> None:
        self.counts: Tensor | None = None

    def add(self, generator: Any, *_: object) -> None:
        found = generator.code_counts.double().cpu()
        self.counts = found if self.counts is None else self.counts + found

    def compute(self, world_size: int, device: torch.device) -> dict[str, float]:
        """metric/perplexity, the mean over the stages, of the codes of all ranks; nothing without codes."""
        if self.counts is None:
            return {}
        counts = self.counts.float().to(device)
        if world_size > 1:
            torch.distributed.all_reduce(counts)
        return {"metric/perplexity": perplexity_of(counts).mean().item()}


@contextmanager
def codebook_use(generator: nn.Module | None) -> Iterator[CodebookUse]:
    """Counts the codes of a tokenizer's forward passes in here; those of another generator, or none, not."""
    use = CodebookUse()
    if generator is None or not hasattr(type(generator), "code_counts"):
        yield use
        return
    handle = generator.register_forward_hook(use.add)
    try:
        yield use
    finally:
        handle.remove()
