"""How many of a tokenizer's codes are in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from litgan.networks.quantizers import perplexity_of


class CodebookUse:
    """Counts of codes over forward passes of a generator.

    Args:
        known: whether the generator is a tokenizer: it offers `code_counts`, [stages, num_codes].
    """

    def __init__(self, known: bool) -> None:
        self.known = known
        self.counts: Tensor | None = None

    def add(self, generator: Any, *_: object) -> None:
        found = generator.code_counts.double().cpu()
        self.counts = found if self.counts is None else self.counts + found

    def compute(self, world_size: int) -> dict[str, float]:
        """metric/perplexity, the mean over the stages, of the codes of all ranks; nothing without codes."""
        shares = [self.counts]
        if self.known and world_size > 1:  # a rank that makes no sample has no counts
            shares = [None] * world_size
            torch.distributed.all_gather_object(shares, self.counts)
        if not (counted := [share for share in shares if share is not None]):
            return {}
        return {"metric/perplexity": perplexity_of(torch.stack(counted).sum(0)).mean().item()}


@contextmanager
def codebook_use(generator: nn.Module | None) -> Iterator[CodebookUse]:
    """Counts the codes of a tokenizer's forward passes in here; those of another generator, or none, not."""
    use = CodebookUse(hasattr(type(generator), "code_counts"))
    handle = generator.register_forward_hook(use.add) if generator is not None and use.known else None
    try:
        yield use
    finally:
        if handle is not None:
            handle.remove()
