from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from litgan.metrics import evaluate
from litgan.text import Grammar, TextStatistics
from litgan.text.metrics import (
    MAX_LENGTH,
    PAD,
    complete_words,
    distinct,
    longest_copies,
    ngram_divergence,
    ngrams,
    self_bleu,
)


def draw(shape, alphabet_size, seed=0):
    return torch.randint(
        0, alphabet_size, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


@pytest.mark.parametrize("order", [1, 2, 3, 8])
def test_the_divergence_of_n_grams_is_scipys(order):
    real, fake = draw((40, 30), 4), draw((60, 30), 5, seed=1)
    counts = [
        Counter(tuple(row[at : at + order]) for row in side.tolist() for at in range(31 - order))
        for side in (real, fake)
    ]
    keys = sorted(counts[0] | counts[1])
    histograms = [[count[key] for key in keys] for count in counts]
    found = ngram_divergence(order, real=real, fake=fake)
    assert found == pytest.approx(jensenshannon(*histograms, base=2) ** 2, abs=1e-9)
    assert ngram_divergence(31, real=real, fake=fake) == 0


def test_n_grams_have_unique_codes():
    codes = ngrams(torch.tensor([[1, 2, 3, 254, 1, 2, 3, 254]], dtype=torch.uint8), 4)
    assert codes.shape == (1, 5) and codes[0, 0] == codes[0, 4] and len(codes.unique()) == 4
    assert ngrams(torch.zeros(3, 2, dtype=torch.uint8), 4).shape == (3, 0)


def test_words_that_the_window_cuts_are_left_out():
    assert complete_words("and the lor") == ["and", "the"]
    assert complete_words("and the lord ") == ["and", "the", "lord"]
    assert complete_words("god's, 3 days.") == ["god", "s", "days"]
    assert complete_words("lord") == []


def test_distinct_counts_by_hand():
    lines = [[1, 2, 1, 2], [1, 2], [3]]
    assert distinct(lines, 1) == 3 / 7
    assert distinct(lines, 2) == 2 / 4  # (1, 2), (2, 1), (1, 2); (1, 2)
    assert distinct([[1]], 2) == 1.0


def bleu(lines):
    """As Papineni et al. write it, a line and an n-gram at a time."""
    logs = []
    for order in (1, 2, 3, 4):
        counts = [
            Counter(tuple(line[at : at + order]) for at in range(len(line) + 1 - order)) for line in lines
        ]
        clipped = total = 0
        for index, mine in enumerate(counts):
            others = [other for row, other in enumerate(counts) if row != index]
            clipped += sum(min(n, max(other[ngram] for other in others)) for ngram, n in mine.items())
            total += mine.total()
        logs.append(math.log(clipped / total))
    return math.exp(sum(logs) / 4)


def test_self_bleu():
    pick = random.Random(0)
    lines = [pick.choices(range(3), k=pick.randint(4, 9)) for _ in range(20)]
    assert self_bleu(lines) == pytest.approx(bleu(lines), rel=1e-5)
    assert self_bleu([[1, 2, 3, 4, 5]] * 3) == pytest.approx(1)
    assert self_bleu([[1, 2, 3, 4], [5, 6, 7, 8]]) == 0
    assert self_bleu([[], []]) == 0 and self_bleu([[1, 2, 3, 4]]) == 0


@pytest.mark.parametrize("alphabet_size", [2, 12, 250])
def test_longest_copies(alphabet_size):
    text, samples = draw((3000,), alphabet_size), draw((30, 20), alphabet_size, seed=1)
    samples[0] = text[100:120]  # a whole window
    samples[1, 5:14] = text[-9:]  # the end of the text
    samples[2, :7] = text[:7]
    haystack = bytes(text.tolist())
    expected = [
        max(
            size
            for size in range(21)
            if any(bytes(row[at : at + size]) in haystack for at in range(21 - size))
        )
        for row in samples.tolist()
    ]
    found = longest_copies(samples, text)
    assert found.tolist() == expected and found[0] == 20 and found[1] >= 9
    assert not longest_copies(samples % 5 + 5, text % 5).any()


def test_features_are_counts_that_keep_inner_products():
    """Weinberger et al. 2009, lemma 2: unbiased. Two texts without a common n-gram are nearly orthogonal."""
    extractor, samples = TextStatistics(), torch.eye(30)[draw((400, 32), 15).long()].transpose(1, 2)
    features = extractor(samples)
    assert features.shape == (400, extractor.dimension) and features.dtype == torch.float32
    disjoint = torch.eye(30)[draw((400, 32), 15, seed=1).long() + 15].transpose(1, 2)
    itself = (features * features).sum(1)[:, None].mean()
    assert (features @ extractor(disjoint).T).mean().abs() < 0.1 * itself
    assert torch.equal(extractor(samples), TextStatistics()(samples)), "the same in every process"
    assert torch.equal(extractor(0.3 + 0.4 * samples), features), "as after decoding"


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 256, 8), (2, 30, MAX_LENGTH + 1)])
def test_other_media_are_rejected(shape):
    with pytest.raises(ValueError, match="'text'"):
        TextStatistics()(torch.zeros(shape))


def test_held_out_text_beats_shuffled_words_and_noise(tmp_path):
    data = Grammar(samples=1500)
    held_out = data.encode(data.load("test")[0])
    words = [sentence.split() for sentence in data.decode(held_out).lines]
    pick = random.Random(0)
    jumbled = [" ".join(pick.sample(line, len(line))).ljust(data.length) for line in words]
    jumbled = data.encode(torch.stack([data.tokenize(line) for line in jumbled]))
    noise = data.encode(draw((1500, data.length), data.alphabet_size))
    reports = [
        evaluate(
            lambda at, n, s=side: s[at : at + n], data, TextStatistics(), count=1500, cache_dir=tmp_path
        ).values
        for side in (held_out, jumbled, noise)
    ]
    names = [name.removeprefix("metric/") for name in reports[0]]
    assert names[0] == "fd_text"
    assert {"js1", "js4", "js8", "real_words", "distinct2", "self_bleu", "longest_copy"} <= set(names)
    for name in ("fd_text", "js3", "js4", "js8"):
        floor, middle, ceiling = (report[f"metric/{name}"] for report in reports)
        assert floor < middle / 2 < ceiling, name
    assert reports[0]["metric/real_words"] == reports[1]["metric/real_words"] == 1.0
    assert reports[2]["metric/real_words"] < 0.1
    lengths = [report["metric/longest_copy"] for report in reports]
    assert 22 < lengths[0] <= data.length and 15 > lengths[1] > lengths[2] and lengths[2] < 5
    assert reports[0]["metric/self_bleu"] > reports[1]["metric/self_bleu"] > reports[2]["metric/self_bleu"]


def test_extras_are_the_tokens_in_any_order():
    """Several ranks gather their samples in another order."""
    tokens = draw((5, 32), 30)
    extras = TextStatistics().extras(torch.eye(30)[tokens.long()].transpose(1, 2))
    assert extras.shape == (5, MAX_LENGTH) and extras.dtype == torch.uint8
    assert torch.equal(extras[:, :32], tokens) and (extras[:, 32:] == PAD).all()
    data = Grammar(samples=900)
    real = data.encode(data.load("test")[0])
    fake = data.encode(draw((900, 24), 18))
    fake[:450] = real[:450]
    extractor = TextStatistics()
    real, fake = extractor.extras(real), extractor.extras(fake)
    table = extractor.extra_metrics(real=real, fake=fake, data=data)
    order = torch.randperm(900, generator=torch.Generator().manual_seed(0))
    assert extractor.extra_metrics(real=real, fake=fake[order], data=data) == table
