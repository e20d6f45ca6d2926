"""Vectors to codes and back: the bottleneck of tokenizers and codecs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from litgan.networks.layers import check_choice

Learning = Literal["ema", "gradient"]
SMOOTHING = 1e-5  # of the counts of codes; from the code of van den Oord et al. 2017
GOLDEN = 2654435761  # 2^32 over the golden ratio: its multiples spread evenly; Knuth, volume 3, section 6.4
MARGIN = 1e-3  # that the outermost levels are missed by before rounding; Mentzer et al. 2023, appendix A.1


class Quantizer(nn.Module, ABC):
    """Replaces the vectors [B, dim, ...] at all positions by some of `num_codes` vectors."""

    dim: int
    num_codes: int

    @abstractmethod
    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The quantized vectors [B, dim, ...], their codes int64 [B, ...], and a loss [B] to be added.

        The gradient of the quantized vectors passes to the given ones as if they were the same (straight
        through, Bengio et al. 2013).
        """

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """The vectors [B, dim, ...] of codes [B, ...]."""


def perplexity(codes: Tensor, num_codes: int) -> Tensor:
    """exp(entropy) of the frequencies of codes of any shape: how many are in use, if all of these equally."""
    return perplexity_of(count_codes(codes, num_codes))


def count_codes(codes: Tensor, num_codes: int) -> Tensor:
    """How often each of `num_codes` codes is among codes of any shape: float32 [num_codes]."""
    codes = codes.flatten()
    ones = torch.ones(len(codes), device=codes.device)
    return torch.zeros(num_codes, device=codes.device).index_add_(0, codes, ones)


def perplexity_of(counts: Tensor) -> Tensor:
    """`perplexity` of codes that were counted, [..., num_codes] to [...]."""
    return torch.special.entr(counts / counts.sum(-1, keepdim=True)).sum(-1).exp()


class VectorQuantizer(Quantizer):
    """A codebook that is learned, van den Oord et al. 2017: vectors to the nearest of its rows.

    With learning "ema" a row is the running average of the vectors it was nearest to (appendix A.1), over all
    ranks, and the loss is commitment * ||z - sg[e]||^2. Rows learn in passes in training mode for which
    gradients are recorded: each micro-batch moves them. A row that is hardly used restarts as one of the
    batch's vectors (Dhariwal et al. 2020, "random restarts"). At first none is in use: rows begin as vectors
    of the first batch, or their averages. Which ones depends on the number of updates, not on the ranks.

    With "gradient" rows are parameters and the loss is ||sg[z] - e||^2 + commitment * ||z - sg[e]||^2
    (equation 3). Squares are means over dimensions and positions. So they are in VQGAN's code (Esser et al.
    2021), whose default weighs the first of the two terms by commitment; here it weighs the paper's.

    Args:
        num_codes: rows of the codebook.
        dim: of the vectors.
        learning: "ema" or "gradient".
        commitment: weight of the encoder's part of the loss, the papers' beta.
        decay: of the running averages, an update.
        restart: share of even use below which a row restarts; 0 for never. It is for "ema" only.

    Raises:
        ValueError: an option is unknown or out of its range.
    """

    counts: Tensor
    sums: Tensor
    updates: Tensor

    def __init__(
        self,
        num_codes: int = 1024,
        dim: int = 256,
        *,
        learning: Learning = "ema",
        commitment: float = 0.25,
        decay: float = 0.99,
        restart: float = 0.05,
    ) -> None:
        super().__init__()
        check_choice("learning", learning, Learning)
        if num_codes < 1 or dim < 1 or commitment < 0 or not (0 <= decay < 1 and 0 <= restart < 1):
            raise ValueError(
                f"VectorQuantizer has num_codes {num_codes}, dim {dim}, commitment {commitment}, decay "
                f"{decay} and restart {restart}: give positive numbers, the last two below 1."
            )
        self.num_codes, self.dim, self.commitment = num_codes, dim, commitment
        self.decay, self.restart, self.learns_by_gradient = decay, restart, learning == "gradient"
        codebook = torch.empty(num_codes, dim).uniform_(-1 / num_codes, 1 / num_codes)
        if self.learns_by_gradient:
            self.codebook: Tensor = nn.Parameter(codebook)
            return
        counts = torch.full((num_codes,), 0.0 if restart else 1.0)
        self.register_buffer("codebook", codebook)
        self.register_buffer("counts", counts)
        self.register_buffer("sums", codebook * counts[:, None])
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            rows = vectors.detach().movedim(1, -1)
            with torch.no_grad():
                codes = (self.codebook.square().sum(1) - 2 * rows @ self.codebook.T).argmin(-1)
            nearest = self.lookup(codes)
            loss = self.commitment * (vectors - nearest.detach()).square().flatten(1).mean(1)
            if self.learns_by_gradient:
                loss = loss + (vectors.detach() - nearest).square().flatten(1).mean(1)
            elif self.training and torch.is_grad_enabled():
                self._learn(rows.flatten(0, -2), codes.flatten())
            return vectors + (nearest - vectors).detach(), codes, loss

    def lookup(self, codes: Tensor) -> Tensor:
        return nn.functional.embedding(codes, self.codebook).movedim(-1, 1)

    @torch.no_grad()
    def _learn(self, rows: Tensor, codes: Tensor) -> None:
        """Moves the averages by the vectors [N, dim] of all ranks, and restarts what is hardly used."""
        counts = torch.zeros_like(self.counts).index_add_(0, codes, torch.ones_like(rows[:, 0]))
        sums = torch.zeros_like(self.sums).index_add_(0, codes, rows)
        seen = torch.cat([counts[:, None], sums, self._candidates(rows)], 1)
        if is_distributed():
            dist.all_reduce(seen)
        counts = seen[:, 0]
        sums, candidates = seen[:, 1:].chunk(2, dim=1)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        even = counts.mean()
        unused = self.counts < self.restart * even
        self.counts.copy_(torch.where(unused, even, self.counts))
        self.sums.copy_(torch.where(unused[:, None], even * candidates, self.sums))
        total = self.counts.sum()
        smooth = (self.counts + SMOOTHING) / (total + self.num_codes * SMOOTHING) * total
        self.codebook.copy_(self.sums / smooth[:, None])
        self.updates += 1

    def _candidates(self, rows: Tensor) -> Tensor:
        """For each code a vector of all ranks' batches, [num_codes, dim]; zeros if it is another rank's."""
        world, rank = (dist.get_world_size(), dist.get_rank()) if is_distributed() else (1, 0)
        order = self.updates * self.num_codes + torch.arange(self.num_codes, device=rows.device)
        place = (order % 2**31 * GOLDEN % 2**32 * (world * len(rows)) >> 32) - rank * len(rows)
        own = (place >= 0) & (place < len(rows))
        return torch.where(own[:, None], rows[place.clamp(0, len(rows) - 1)], 0.0)


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


class FiniteScalarQuantizer(Quantizer):
    """Each dimension is bounded and rounded to its own number of levels, Mentzer et al. 2023: no codebook.

    The quantized values are in [-1, 1]. There is nothing to learn, to average or to restart; the loss is 0.

    Args:
        levels: of each dimension, at least 2; the paper's are (8, 6, 5) for 240 codes, (8, 5, 5, 5) for 1000,
            (7, 5, 5, 5, 5) for 4375.

    Raises:
        ValueError: there is no level, or one is below 2.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int] = (8, 5, 5, 5)) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"FiniteScalarQuantizer has levels {list(levels)}: give some of at least 2.")
        self.dim, self.num_codes = len(levels), math.prod(levels)
        numbers = torch.tensor(levels)
        self.register_buffer("levels", numbers, persistent=False)
        self.register_buffer("basis", numbers.cumprod(0) // numbers, persistent=False)  # 1, l_1, l_1 l_2, ...

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(vectors.device.type, enabled=False):
            rows = vectors.float().movedim(1, -1)
            reach = (self.levels - 1) * (1 - MARGIN) / 2
            offset = (1 - self.levels % 2) / 2  # an even number of levels has one more below zero than above
            bounded = torch.tanh(rows + torch.tan(offset / reach)) * reach - offset
            digits, half = bounded.round().detach(), self.levels // 2
            codes = ((digits.long() + half) * self.basis).sum(-1)
            quantized = (bounded + (digits - bounded).detach()) / half
            return quantized.movedim(-1, 1), codes, vectors.new_zeros(vectors.shape[0])

    def lookup(self, codes: Tensor) -> Tensor:
        half = self.levels // 2
        return ((codes[..., None] // self.basis % self.levels - half) / half).movedim(-1, 1)
