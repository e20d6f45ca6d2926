"""Text in pieces: it is the text that letters give, and it is measured and shown as they are."""

from __future__ import annotations

import random
import sys
from functools import partial
from typing import Any

import pytest
import torch
from shared.extras import without
from shared.resuming import check_six_are_three_and_three, player

from litgan import GAN
from litgan.checkpoints import build_data
from litgan.losses import NonSaturating
from litgan.text import (
    CausalTextDiscriminator,
    PieceText,
    RecurrentTextGenerator,
    Text,
    TextBatch,
    TextStatistics,
)
from litgan.text.pieces import LONGEST

WORDS = ["the", "sea", "of", "waters", "and", "gathered", "gathering,", "(seas)", "Zoë", "wilderness;"]


@pytest.fixture
def novel(tmp_path):
    """A file of 400 lines of random words, with capitals, brackets and a letter that is not ASCII."""
    draw = random.Random(0)
    path = tmp_path / "novel.txt"
    path.write_text("\n".join(" ".join(draw.choices(WORDS, k=9)) for _ in range(400)), encoding="utf-8")
    return str(path)


def pieces_of(path, **options: Any) -> PieceText:
    return PieceText(
        path, **({"length": 20, "pieces": 8, "vocabulary_size": 90, "alphabet_size": 40} | options)
    )


def random_texts(data, count=50):
    """Texts of its letters, in no order that it has been taught."""
    draw = random.Random(1)
    return ["".join(draw.choices(data.alphabet, k=draw.randint(0, 60))) for _ in range(count)]


@pytest.mark.parametrize("alphabet_size", [8, 40])
def test_the_pieces_of_a_text_are_the_text(novel, alphabet_size):
    """Also of random letters, and where a small alphabet leaves some unknown."""
    data = pieces_of(novel, alphabet_size=alphabet_size)
    data.load()
    assert 20 < len(data.pieces) <= 90 - alphabet_size
    assert alphabet_size == 8 or {"the ", "sea"} <= set(data.pieces)
    assert all(2 <= len(piece) <= LONGEST for piece in data.pieces)
    vocabulary = data.padded_vocabulary
    whole = data.detokenize(data._text[0])
    tokens, ends = data._split_text
    assert "".join(vocabulary[token] for token in tokens) == whole and ends[-1] == len(whole)
    for text in random_texts(data):
        assert "".join(vocabulary[token] for token in data.split(text)) == text


def test_windows_are_those_of_letters(novel):
    """The same passages are held out, and a window begins where one of letters does."""
    letters, data = Text(novel, length=20, alphabet_size=40), pieces_of(novel)
    for split in ("train", "test"):
        stored = data.load(split)[0]
        lines = data.decode(data.encode(stored)).lines
        known = letters.decode(letters.encode(letters.load(split)[0])).lines
        short = [line for line in lines if line not in known]
        assert stored.dtype == torch.int16 and stored.shape[1:] == (8,)
        assert 0.9 * len(known) < len(lines) <= len(known) and len(short) < 0.1 * len(lines)
        assert all(any(other.startswith(line.rstrip()) for other in known) for line in short)
    assert data.load("train")[0].shape != letters.load("train")[0].shape


def test_metrics_get_the_characters_that_are_shown(novel):
    letters, data = Text(novel, length=20, alphabet_size=40), pieces_of(novel)
    stored = data.load()[0]
    random_pieces = torch.randint(90, (40, 8), generator=torch.Generator().manual_seed(0))
    samples = data.encode(torch.cat([stored[:40].long(), random_pieces]))
    assert samples.shape == (80, *data.sample_shape) == (80, 90, 8)
    spelled = data.spell(samples)
    assert spelled.shape == (80, 40, 20) and torch.equal(spelled.sum(1), torch.ones(80, 20))
    lines = data.decode(samples).lines
    assert {len(line) for line in lines} == {20}
    assert TextBatch(spelled.argmax(1), data.padded_alphabet).lines == lines
    of_letters, of_pieces = TextStatistics(), TextStatistics()
    of_letters.setup(letters)
    of_pieces.setup(data)
    assert torch.equal(of_letters(spelled), of_pieces(samples))
    assert torch.equal(of_letters.extras(spelled), of_pieces.extras(samples))
    real, fake = of_pieces.extras(samples[:40]), of_pieces.extras(samples[40:])
    found = of_pieces.extra_metrics(real=real, fake=fake, data=data)
    assert found == of_letters.extra_metrics(real=real, fake=fake, data=letters)
    copied = of_pieces.extra_metrics(real=fake, fake=real, data=data)["longest_copy"]
    assert found["longest_copy"] < copied and copied > 19, "memorized text is found in characters"


def test_a_short_text_is_filled_and_a_long_one_is_cut():
    batch = TextBatch(torch.tensor([[0, 1, 2], [2, 2, 2]]), ["a", "bc ", "def"], 6)
    assert batch.lines == ["abc de", "defdef"] and batch.render().shape[1] % 6 == 0
    assert TextBatch(torch.tensor([[0, 0]]), ["a"], 4).lines == ["aa  "]


def test_the_gradient_of_a_piece_colors_its_characters():
    batch, feedback = TextBatch(torch.tensor([[1, 0, 2]]), ["a", "bc", "d"], 4), torch.zeros(1, 3, 3)
    feedback[0, 1, 0], feedback[0, 0, 1], feedback[0, :, 2] = 2.0, -2.0, 5.0
    picture = batch.render_with_grad(feedback)
    width = picture.shape[1] // 4
    corners = [picture[0, place * width].tolist() for place in range(4)]
    assert corners == [[255, 0, 0], [255, 0, 0], [0, 0, 255], [255, 255, 255]]


def test_a_checkpoint_decodes_without_text_and_package(novel, monkeypatch):
    data = pieces_of(novel)
    stored = data.load()[0]
    samples = data.encode(stored[:9])
    recipe = {"class_path": "litgan.text.PieceText", "init_args": {
        "path": novel, "length": 20, "pieces": 8, "vocabulary_size": 90, "alphabet_size": 40}}  # fmt: skip
    checkpoint = {"litgan": {"recipe": {"data": recipe}}, "PieceText": data.state_dict()}
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with monkeypatch.context() as no_text:
        no_text.setattr("litgan.text.data.read_file", pytest.fail)
        assert build_data(checkpoint, PieceText).decode(samples).lines == data.decode(samples).lines
    again = build_data(checkpoint, PieceText)
    assert torch.equal(again.load()[0], stored) and again.fingerprint == data.fingerprint


def test_without_the_package_a_sentence_names_the_extra(novel, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(
        ImportError, match=r"^The package tokenizers is not installed: .*\[text\] brings it\.$"
    ):
        pieces_of(novel).load()


@pytest.mark.spawn
def test_pieces_are_learned_alike_in_every_process(novel):
    script = "from litgan.text import PieceText; data = PieceText(sys.argv[1], 20, 8, 90, 40)\n"
    found = without([], script + "print(data.fingerprint, data.pieces)", novel).stdout.strip()
    data = pieces_of(novel)
    assert found == f"{data.fingerprint} {data.pieces}"


@pytest.mark.parametrize("pieces", [7, None, ["a"], ["xy"], ["ab" * LONGEST], ["ab", "a\u2028"], ["ab"] * 99])
def test_the_pieces_of_a_stranger_are_short_texts_of_its_letters(pieces: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^The checkpoint holds no 50 pieces or fewer of its letters[^\n]*\.$"
    ):
        pieces_of(None).load_state_dict({"alphabet": " ab", "pieces": pieces})


def test_a_resumed_run_needs_the_pieces_it_was_trained_with(novel):
    data = pieces_of(novel)
    data.load()
    data.load_state_dict(data.state_dict())  # its own
    with pytest.raises(
        ValueError, match=r"other pieces than this text: resume with the text that"
    ) as refused:
        data.load_state_dict(data.state_dict() | {"pieces": data.pieces[1:]})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"pieces": 0}, r"Windows of 0 pieces from a vocabulary of 90"),
        ({"vocabulary_size": 40}, r"a vocabulary of 40 .* more than the 40 letters and at most 32767"),
        ({"vocabulary_size": 40_000}, r"a vocabulary of 40000"),
        ({"pieces": 9_000}, r"too few for a window of 20 in the split 'train'"),
    ],
)
def test_bad_options_are_one_sentence(options, sentence, novel):
    with pytest.raises(ValueError, match=sentence) as refused:
        pieces_of(novel, **options).load()
    assert "\n" not in str(refused.value)


def test_six_iterations_are_three_and_three(novel, make_trainer, tmp_path):
    adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99))

    def small(**options: Any) -> GAN:
        return GAN(
            generator=partial(RecurrentTextGenerator, latent_dim=4, width=8),
            discriminator=partial(CausalTextDiscriminator, width=8, dilations=(1,)), loss=NonSaturating(),
            generator_optimizer=adam, discriminator_optimizer=adam, sample_shape=(90, 8), **options,
        )  # fmt: skip

    train = player(small, pieces_of, make_trainer)
    check_six_are_three_and_three(train, {}, {"path": novel, "batch_size": 8}, tmp_path)
