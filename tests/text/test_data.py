from __future__ import annotations

import random
import shutil
from collections import Counter
from typing import Any

import pytest
import torch

from litgan.checkpoints import build_data
from litgan.text import Grammar, Text, TextBatch
from litgan.text.data import UNK, king_james_bible


@pytest.fixture
def novel(tmp_path):
    """A file of 300 lines of random words, with capitals, tabs, empty lines and one rare letter."""
    draw = random.Random(0)
    lines = [" ".join(draw.choices(["The", "of", "and\t", "sea"], k=9)) for _ in range(300)]
    path = tmp_path / "novel.txt"
    path.write_text("\n\n".join([*lines, "Zoë"]), encoding="utf-8")
    return path


def lines_of(data, split="train"):
    return data.decode(data.encode(data.load(split)[0])).lines


def test_windows_are_of_the_file_and_start_at_words(novel):
    data = Text(str(novel), length=16, alphabet_size=16)
    whole = " ".join(novel.read_text().split())
    held_out = [place // 640 % 10 == 9 for place in range(len(whole))]
    starts = [at for at in range(len(whole) - 15) if at == 0 or whole[at - 1] == " "]
    for split, out in (("train", False), ("test", True)):
        chosen = [at for at in starts if held_out[at] == held_out[at + 15] == out]
        assert lines_of(data, split) == [whole[at : at + 16] for at in chosen] != []
    assert data.sample_shape == (16, 16) and data.alphabet[0] == " "
    kept = [character for character, out in zip(whole, held_out, strict=True) if not out]
    assert data.detokenize(data.corpus) == "".join(kept)


def test_windows_may_start_at_lines_only(novel):
    data = Text(str(novel), length=16, window_start="lines")
    starts = {" ".join(line.split())[:9] for line in novel.read_text().splitlines() if line}
    train = lines_of(data)
    assert 200 < len(train) < 301 and {line[:9] for line in train} <= starts


def test_samples_are_one_hot_and_decode_to_the_same_tokens(novel):
    data = Text(str(novel), length=8, alphabet_size=32)
    stored, labels = data.load()
    samples = data.encode(stored[:50])
    assert stored.dtype == torch.uint8 and labels is None
    assert samples.shape == (50, 32, 8) and samples.dtype == torch.float32
    assert torch.equal(samples.sum(1), torch.ones(50, 8)) and set(samples.unique().tolist()) == {0.0, 1.0}
    media = data.decode(samples)
    assert isinstance(media, TextBatch) and torch.equal(media.tokens, stored[:50].long())


def test_the_alphabet_is_the_space_and_the_most_frequent(novel):
    small = Text(str(novel), length=8, alphabet_size=7, lower=True)
    small.load()
    assert small.alphabet[0] == " " and small.alphabet[-1] == UNK and len(small.alphabet) == 7
    whole = " ".join(novel.read_text().lower().split())
    counts = Counter(char for place, char in enumerate(whole) if place // 320 % 10 != 9 and char != " ")
    assert [counts[char] for char in small.alphabet[1:-1]] == [n for _, n in counts.most_common(5)]
    assert small.detokenize(small.corpus).count(UNK) == counts.total() - sum(
        n for _, n in counts.most_common(5)
    )
    large = Text(str(novel), length=8, alphabet_size=64, lower=True)
    large.load()
    assert set(large.alphabet) == {" ", *counts} and len(large.alphabet) == len({" ", *counts})
    assert large.padded_alphabet == large.alphabet + UNK * (64 - len(large.alphabet))


@pytest.mark.parametrize(("lower", "first"), [(False, "The"), (True, "the")])
def test_the_vocabulary_is_that_of_the_training_text(novel, lower, first):
    words = Text(str(novel), length=16, lower=lower).vocabulary
    assert words & {"The", "the", ""} == {first} and {"of", "and", "sea"} <= words


def test_a_checkpoint_decodes_without_the_text(novel, tmp_path):
    """Lightning keeps the state under the class's name; the recipe says how the module is made."""
    data = Text(str(novel), length=8)
    samples = data.encode(data.load()[0][:9])
    recipe = {"class_path": "litgan.text.Text", "init_args": {"path": str(novel), "length": 8}}
    checkpoint = {"litgan": {"recipe": {"data": recipe}}, "Text": data.state_dict()}
    novel.unlink()
    assert build_data(checkpoint, Text).decode(samples).lines == data.decode(samples).lines
    with pytest.raises(FileNotFoundError, match=r"^There is no text at .*: give the path of a UTF-8 file\.$"):
        build_data({"litgan": checkpoint["litgan"]}, Text).decode(samples)


def test_a_resumed_run_needs_the_text_it_was_trained_on(novel, tmp_path):
    data, other = Text(str(novel), length=8), tmp_path / "other.txt"
    data.load()
    other.write_text("0123456789 " * 100)
    other_text = Text(str(other), length=8)
    other_text.load()
    with pytest.raises(ValueError, match="resume with the text that it was trained on") as refused:
        other_text.load_state_dict(data.state_dict())
    assert "\n" not in str(refused.value)
    data.load_state_dict(data.state_dict())  # its own


def test_a_character_outside_the_alphabet_is_named(novel):
    data = Text(str(novel), length=8, alphabet_size=4)
    data.load_state_dict({"alphabet": " abc"})
    with pytest.raises(ValueError, match=r"^The character '\w' is outside the alphabet, .*: raise"):
        data.load()
    roomy = Text(str(novel), length=8, alphabet_size=5)
    roomy.load_state_dict({"alphabet": " abc"})
    assert roomy.detokenize(roomy.tokenize("cab é")) == "cab " + UNK


@pytest.mark.parametrize(
    ("content", "options", "sentence"),
    [
        (b"too short", {"length": 16}, r"has 9 characters, too few for a window of 16 in the split 'train'"),
        (b"\n", {"length": 16, "window_start": "lines"}, r"has 0 characters"),
        (b"word " * 20, {"length": 16, "split": "test"}, r"in the split 'test': give a longer text"),
        (b"caf\xe9 " * 20, {"length": 4}, r"is not UTF-8 \(byte 3 is 0xe9\): convert it"),
        (b"word", {"length": 0}, r"Windows of 0 characters"),
        (b"word", {"alphabet_size": 256}, r"an alphabet of 256 .* 2 to 255"),
    ],
)
def test_bad_input_is_one_sentence(content, options, sentence, tmp_path):
    path, options = tmp_path / "text.txt", dict(options)
    path.write_bytes(content)
    split = options.pop("split", "train")
    with pytest.raises(ValueError, match=sentence) as refused:
        Text(str(path), **options).load(split)
    assert "\n" not in str(refused.value)


def test_where_the_bible_is_missing_the_message_names_the_package(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match=r"apt-get install bible-kjv brings it"):
        Text().load()


@pytest.mark.skipif(shutil.which("bible") is None, reason="needs `bible`: apt-get install bible-kjv")
def test_the_bible_comes_without_labels():
    text = king_james_bible()
    assert text.startswith("In the beginning God created the heaven and the earth.\n")
    assert len(text) > 4_000_000 and not any(digit in text for digit in "0123456789")
    data = Text(length=32, alphabet_size=40, lower=True, window_start="lines")
    assert data.size() > 27_000 and data.size("test") > 3_000
    data.load()
    assert UNK not in data.alphabet


def test_sentences_of_the_grammar_are_valid_and_agree():
    data = Grammar(samples=2000)
    train = lines_of(data)
    assert len(set(data.language)) == 400 and data.sample_shape == (18, 24)
    assert data.valid(train) == 1.0 and train != lines_of(data, "test")
    assert len(set(train)) > 390, "400 * (1 - exp(-2000 / 400)) = 397 are expected"
    wrong = ["one cat see two dogs", "two cats sees one dog", "one cats sees one dog", "two dog", "", "one x"]
    assert Grammar.valid([*wrong, "one cat sees one dog   "]) == pytest.approx(1 / 7)
    assert Grammar(seed=1).fingerprint == Grammar(seed=2).fingerprint


@pytest.mark.parametrize("alphabet", [7, None, ["a"], "x" * 65])
def test_the_alphabet_of_a_stranger_is_a_short_text(alphabet: Any) -> None:
    with pytest.raises(ValueError, match=r"alphabet .*\.$"):
        Text().load_state_dict({"alphabet": alphabet})
