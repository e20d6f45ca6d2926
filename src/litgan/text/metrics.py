"""Metrics of text: n-grams, words, repetition and copies of the training text. They need no weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.metrics.distances import jensen_shannon
from litgan.metrics.extractors import FeatureExtractor
from litgan.noise import torch_generator
from litgan.text.data import WORD

BUCKETS = 64  # features per order
ORDERS = (1, 2, 3, 4)  # n of the character n-grams
MULTIPLIER = -7046029254386353131  # 2^64 / golden ratio: Knuth 1998, "Sorting and Searching", section 6.4
MAX_LENGTH = 512  # characters of a window that the table uses
BLOCK = 1 << 24  # characters of the training text that are searched at once
PAD = 255  # not a token: pads windows to `MAX_LENGTH`
SUBSET_SIZE = 500  # samples for metrics of quadratic cost, or that search the training text


class TextStatistics(FeatureExtractor):
    """Counts of character n-grams, n = 1 to 4, hashed to 64 signed sums per n (256 features).

    Feature hashing is Weinberger et al. 2009, section 2: inner products of the sums are unbiased estimates of
    those of the counts. Samples are decoded first, by the argmax at each position, so features have no
    gradient. Pieces are spelled, so that letters and pieces are compared by the same characters.
    """

    name, dimension = "text", BUCKETS * len(ORDERS)
    extras_size, extras_dtype = MAX_LENGTH, torch.uint8
    needs = ("length", "detokenize", "spell")

    def __init__(self) -> None:
        super().__init__()
        self.spell: Callable[[Tensor], Tensor] = unchanged  # samples are one-hot characters
        self.finalize()

    def setup(self, data: Any) -> None:
        super().setup(data)
        self.spell = data.spell

    def check(self, samples: Tensor) -> None:
        samples = self.spell(samples)
        if samples.ndim != 3 or samples.shape[1] > PAD or samples.shape[2] > MAX_LENGTH:
            raise ValueError(
                f"The extractor 'text' takes [N, alphabet_size, length], up to {PAD} tokens and "
                f"{MAX_LENGTH} characters, not {list(samples.shape)}: choose one that fits this data set."
            )

    def features(self, samples: Tensor) -> Tensor:
        tokens = self.spell(samples).argmax(1)
        sums = []
        for order in ORDERS:
            hashed = ngrams(tokens, order).add(order) * MULTIPLIER
            bucket, sign = (hashed >> 40) & (BUCKETS - 1), ((hashed >> 50) & 1) * 2 - 1
            counts = torch.zeros(len(tokens), BUCKETS, device=tokens.device)
            sums.append(counts.scatter_add_(1, bucket, sign.float()))
        return torch.cat(sums, dim=1)

    def extras(self, samples: Tensor) -> Tensor:
        tokens = self.spell(samples).argmax(1).to(torch.uint8)
        return F.pad(tokens, (0, MAX_LENGTH - tokens.shape[1]), value=PAD)

    def extra_metrics(self, *, real: Tensor, fake: Tensor, data: Any) -> dict[str, float]:
        """Metrics of text. For reference, measure the training text against held-out text.

        js<n>: Jensen-Shannon divergence of character n-grams (bits), n = 1 to 4, and 8 for word order.
        real_words: fraction of complete words that occur in the training text.
        distinct<n>: distinct over all n-grams of words (Li et al. 2016, section 5.1).
        self_bleu: see `self_bleu`, of at most 500 samples.
        longest_copy: length of the longest substring that the training text contains, mean over 500 samples.
        """
        real, fake = real[:, : data.length], fake[:, : data.length]
        values = {f"js{n}": ngram_divergence(n, real=real, fake=fake) for n in (1, 2, 3, 4, 8)}
        words = [complete_words(data.detokenize(line)) for line in fake.cpu()]
        count = sum(map(len, words))
        values["real_words"] = sum(word in data.vocabulary for line in words for word in line) / max(1, count)
        numbers: dict[str, int] = {}
        numbered = [[numbers.setdefault(word, len(numbers)) for word in line] for line in words]
        for order in (1, 2, 3):
            values[f"distinct{order}"] = distinct(numbered, order)
        subset = random_subset(fake)
        values["self_bleu"] = self_bleu([numbered[index] for index in subset.tolist()])
        copies = longest_copies(fake[subset].cpu(), data.corpus)
        return values | {"longest_copy": copies.double().mean().item()}


def unchanged(samples: Tensor) -> Tensor:
    return samples


def random_subset(tokens: Tensor) -> Tensor:
    """Indices, int64, of at most `SUBSET_SIZE` rows of tokens [N, T]; the choice ignores the rows' order."""
    rows = tokens.cpu().numpy()
    ordered = torch.from_numpy(np.lexsort(rows.T[::-1]))
    return ordered[torch.randperm(len(rows), generator=torch_generator("text", "some"))[:SUBSET_SIZE]]


def ngrams(tokens: Tensor, order: int) -> Tensor:
    """n-grams of tokens [N, T] as int64 codes [N, T - n + 1]; codes are unique for n up to 8."""
    if order > tokens.shape[1]:
        return torch.zeros(len(tokens), 0, dtype=torch.int64, device=tokens.device)
    codes = torch.zeros(len(tokens), tokens.shape[1] - order + 1, dtype=torch.int64, device=tokens.device)
    for index in range(order):
        codes = (codes << 8) + tokens[:, index : index + codes.shape[1]]
    return codes


def ngram_divergence(order: int, *, real: Tensor, fake: Tensor) -> float:
    """Jensen-Shannon divergence in bits of the n-grams of tokens [N, T]; 0 if they are shorter."""
    sides = ngrams(real, order).flatten(), ngrams(fake, order).flatten()
    codes, position = torch.cat(sides).sort()
    distinct_codes, index = codes.unique_consecutive(return_inverse=True)
    is_real = position < len(sides[0])
    counts = [index[side].bincount(minlength=len(distinct_codes)) for side in (is_real, ~is_real)]
    return jensen_shannon(real=counts[0], fake=counts[1]).item() if len(codes) else 0.0


def complete_words(text: str) -> list[str]:
    """The words of a window, except one that ends at its end, which may be cut off."""
    return [match.group() for match in WORD.finditer(text) if match.end() < len(text)]


def word_ngrams(lines: Sequence[Sequence[int]], order: int) -> list[list[tuple[int, ...]]]:
    """The n-grams of each line."""
    return [list(zip(*(line[index:] for index in range(order)))) for line in lines]  # noqa: B905


def distinct(lines: Sequence[Sequence[int]], order: int) -> float:
    """The number of distinct n-grams of the lines over that of all; 1 if there are none."""
    found = [ngram for line in word_ngrams(lines, order) for ngram in line]
    return len(set(found)) / max(1, len(found)) if found else 1.0


def self_bleu(lines: Sequence[Sequence[int]]) -> float:
    """BLEU-4 (Papineni et al. 2002, section 2.3) of the lines, each against all others (Zhu et al. 2018).

    Counts are summed over the lines, as in the first paper. There is no brevity penalty, because all windows
    have equal lengths. 1 if every line equals another.
    """
    precisions = []
    for order in (1, 2, 3, 4):
        found = word_ngrams(lines, order)
        numbers: dict[tuple[int, ...], int] = {}
        cells = [
            (row, numbers.setdefault(ngram, len(numbers))) for row, line in enumerate(found) for ngram in line
        ]
        if not cells:
            break
        counts = torch.zeros(len(lines), len(numbers))
        counts.index_put_(tuple(torch.tensor(cells).T), torch.ones(len(cells)), accumulate=True)
        best = F.pad(counts, (0, 0, 0, 1)).topk(2, dim=0).values
        others = torch.where(counts == best[0], best[-1], best[0])  # the largest count in another line
        precisions.append(torch.minimum(counts, others).sum() / counts.sum())
    return torch.stack(precisions).log().mean().exp().item() if precisions else 0.0


def longest_copies(samples: Tensor, text: Tensor) -> Tensor:
    """Length of the longest substring of each sample [N, T] in a text [M], both uint8: int64 [N]."""
    overlap = samples.shape[1] - 1  # the search takes some thirty bytes a character: so many at a time
    starts = range(0, max(1, len(text)), BLOCK)
    found = [_longest_copies(samples, text[at : at + BLOCK + overlap]) for at in starts]
    return torch.stack(found).amax(0)


def _longest_copies(samples: Tensor, text: Tensor) -> Tensor:
    """The same, at once.

    Matches the text against a trie of all substrings of the samples, one character deeper per iteration.
    `node[i]` is the trie node of the text from `starts[i]` on, `piece` those of the samples' substrings.
    Starts without a match are dropped, most of them within ten characters.
    """
    longest = torch.zeros(len(samples), dtype=torch.int64)
    starts, node = torch.arange(len(text), dtype=torch.int32), torch.zeros(len(text), dtype=torch.int32)
    text, piece, nodes = text.int(), torch.zeros_like(samples, dtype=torch.int64), 1
    for depth in range(samples.shape[1]):
        branch = piece[:, : samples.shape[1] - depth] * 256 + samples[:, depth:]
        known, piece = branch.unique(return_inverse=True)
        child = torch.full((nodes * 256,), -1, dtype=torch.int32)
        child[known], nodes = torch.arange(len(known), dtype=torch.int32), len(known)
        within = starts < len(text) - depth
        starts, node = (starts, node) if within.all() else (starts[within], node[within])
        node = child[node * 256 + text[starts + depth]]
        matched = node >= 0
        starts, node = starts[matched], node[matched]
        copied = torch.zeros(nodes, dtype=torch.bool).index_fill_(0, node.long(), True)[piece].any(1)
        if not copied.any():
            break
        longest[copied] = depth + 1
    return longest
