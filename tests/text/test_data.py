from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import torch

from litgan.checkpoints import build_data
from litgan.text import Grammar, Text, TextBatch
from litgan.text.corpus import UNK, king_james_bible, normalized, read_file
from litgan.text.data import Windows


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


@pytest.mark.parametrize("block", [1, 2, 7, 64, 1 << 20])
def test_a_text_read_in_blocks_is_the_whole_text(block, tmp_path, monkeypatch):
    draw = random.Random(block)
    whole = "".join(
        draw.choices(["a", "Σ", "é", "字", " ", "\n", "\r\n", "\t", "\u2028", "\x85", "  "], k=3_000)
    )
    path = tmp_path / "text.txt"
    path.write_bytes(whole.encode())
    for module in ("corpus", "data"):
        monkeypatch.setattr(f"litgan.text.{module}.BLOCK", block)
    parts = list(normalized(read_file(str(path)), lower=False))
    text = "".join(part for part, _ in parts)
    assert text == " ".join(whole.split())
    lines = [" ".join(line.split()) for line in whole.splitlines()]
    place, expected, found = 0, [], []
    for line in filter(None, lines):
        expected.append(place)
        place += len(line) + 1
    place = 0
    for part, starts in parts:
        found += [place + start for start in starts]
        place += len(part)
    assert found == expected
    if block > 60:
        lowered = "".join(part for part, _ in normalized(read_file(str(path)), lower=True))
        assert lowered == " ".join(whole.lower().split())


@pytest.mark.parametrize("letters", [4, 60])
def test_a_byte_order_mark_is_no_character(letters, tmp_path):
    draw, found = random.Random(0), []
    text = "".join(draw.choices("abcdefghij"[:letters] + " ", k=9_000))
    for name, encoding in (("plain", "utf-8"), ("marked", "utf-8-sig")):
        (tmp_path / name).write_text(text, encoding=encoding)
        data = Text(str(tmp_path / name), length=8, alphabet_size=min(letters, 10) + 1)
        found.append((data.load()[0], data.alphabet))
    assert torch.equal(found[0][0], found[1][0]) and found[0][1] == found[1][1]


def test_a_path_may_begin_at_home(novel, monkeypatch):
    monkeypatch.setenv("HOME", str(novel.parent))
    assert Text("~/novel.txt", length=8).size() == Text(str(novel), length=8).size()


def test_the_summary_states_the_share_of_unknown_characters(novel, tmp_path):
    path = tmp_path / "many.txt"
    path.write_text(
        " ".join("".join(map(chr, range(0x4E00, 0x4E00 + 1_000)))[at:] for at in range(0, 999, 9))
    )
    few = Text(str(path), length=8, alphabet_size=64)
    share = few._text[0].eq(63).float().mean().item()
    assert share > 0.8 and f"; {share:.2%} of the characters are outside the alphabet of 64" in few.summary
    assert "unknown" not in Text(str(novel), length=8).summary


def test_windows_of_a_long_text_are_cut_when_they_are_needed(novel, monkeypatch):
    def batches():
        data = Text(str(novel), length=16, batch_size=8)
        return data, [batch for batch, _ in data.train_dataloader()]

    data, copied = batches()
    monkeypatch.setattr("litgan.text.data.MAX_COPIES", 100)
    lazy, cut = batches()
    assert isinstance(lazy.load()[0], Windows) and len(cut) == len(copied)
    assert all(torch.equal(one, other) for one, other in zip(cut, copied, strict=True))
    assert lazy.signature == data.signature and int(lazy.fingerprint, 16)
    assert lazy.fingerprint != lazy.fingerprint_of("test")


@pytest.mark.heavy
def test_a_text_takes_little_more_memory_than_its_file(tmp_path):
    path = tmp_path / "long.txt"
    with path.open("w") as file:
        for _ in range(20):
            file.write("one hen feeds two dogs and an owl\n" * 15_000)  # half a megabyte
    script = (
        "import resource, sys; from litgan.text import Text\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = used(); data = Text(sys.argv[1]); data.load(); data.fingerprint\n"
        "print(used() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 14 * path.stat().st_size, "most of it is needed for any text"


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
