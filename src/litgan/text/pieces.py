"""Text as windows of pieces of words in place of letters: a line has a fourth as many."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.extras import require
from litgan.text.corpus import BLOCK
from litgan.text.data import Text, Windows, windows
from litgan.text.render import TextBatch

WORD = re.compile(r"[^ ]* |[^ ]+")  # with the space after it; no piece crosses its end
LONGEST = 16  # characters of a piece
MAX_VOCABULARY_SIZE = 32_767  # tokens are stored as int16


class PieceText(Text):
    """As `Text`, in pieces of words: stored int16 [N, pieces]; one-hot samples [N, vocabulary_size, pieces].

    The first tokens are the letters of the alphabet, the others pieces of 2 to 16 letters, learned from the
    training text by byte-pair encoding (Sennrich et al. 2016, section 3.2) with the package `tokenizers`. A
    word is split into the longest pieces from its beginning on. Checkpoints contain the pieces, so samples
    can be decoded and a text can be split without that package.

    Windows start at the same places and the same passages are held out as in a `Text` of this length, and
    pictures, files and metrics get the first `length` characters, so both are compared by the same text.

    Args:
        path: of the file; None for the text that Debian's `bible` prints, without its verse labels.
        length: characters of a window that are measured and shown; a text that is shorter is filled with
            spaces.
        pieces: of a window; about a third of `length` covers nearly all windows.
        vocabulary_size: number of tokens, at most 32,767; a short text leaves some unused.
        alphabet_size: number of letters, at most 255 and less than `vocabulary_size`.
        lower: whether the text is converted to lower case.
        window_start: a window starts at every word ("words") or only at every line ("lines").
        common: `batch_size`, `seed`, `memory`: see `GANDataModule`.

    Raises:
        ImportError: `tokenizers` is not installed, and there is no checkpoint that has the pieces.
        ValueError: as `Text`; the vocabulary is smaller than the alphabet or too large.
    """

    def __init__(
        self,
        path: str | None = None,
        length: int = 64,
        pieces: int = 24,
        vocabulary_size: int = 1000,
        alphabet_size: int = 64,
        lower: bool = False,
        window_start: Literal["words", "lines"] = "words",
        **common: Any,
    ) -> None:
        super().__init__(path, length, alphabet_size, lower, window_start, **common)
        if not alphabet_size < vocabulary_size <= MAX_VOCABULARY_SIZE or pieces < 1:
            raise ValueError(
                f"Windows of {pieces} pieces from a vocabulary of {vocabulary_size} cannot be made: give at "
                f"least 1 piece, and a vocabulary_size of more than the {alphabet_size} letters and at most "
                f"{MAX_VOCABULARY_SIZE}."
            )
        self.sample_shape = (vocabulary_size, pieces)
        self.pieces: list[str] = []  # the longer ones, until the text is read or a checkpoint is loaded

    @property
    def padded_vocabulary(self) -> list[str]:
        """The text of each token: letters, longer pieces, spaces for unused tokens."""
        letters = list(self.padded_alphabet)  # reads the text if need be
        known = [*letters, *self.pieces]
        return known + [" "] * (self.sample_shape[0] - len(known))

    def read(self, split: str) -> tuple[Tensor | Windows, None]:
        starts, count = torch.cat(list(self._starts(split))), self.sample_shape[1]
        if not self.pieces:
            self.pieces = learn_pieces(
                self._words(self.corpus), self.alphabet, self.sample_shape[0] - self.alphabet_size
            )
        tokens, ends = self._split_text
        begins = F.pad(ends, (1, 0))
        first = torch.searchsorted(begins, starts)
        first = first[first + count <= len(tokens)]
        inside = self._is_held_out(ends[first + count - 1] - 1) == (split == "test")
        self._report(split, int(inside.sum()))
        return windows(tokens, first[inside], count), None

    @cached_property
    def _split_text(self) -> tuple[Tensor, Tensor]:
        """The whole text in pieces, int16 [P], and the places of characters where they end, int64 [P]."""
        known: dict[str, bytes] = {}  # a word's tokens
        tokens = bytearray()
        for word in self._words(self._text[0]):
            if word not in known:
                known[word] = np.array(self.split(word), np.int16).tobytes()
            tokens += known[word]
        found = torch.frombuffer(tokens, dtype=torch.int16) if tokens else torch.zeros(0, dtype=torch.int16)
        sizes = torch.tensor([len(piece) for piece in self.padded_vocabulary])
        return found, sizes[found.long()].cumsum(0)

    def split(self, word: str) -> list[int]:
        """The tokens of a text of known letters: always the longest piece that the rest begins with."""
        tokens, place = [], 0
        while place < len(word):
            longest = range(min(LONGEST, len(word) - place), 0, -1)
            size = next(size for size in longest if word[place : place + size] in self._numbers)
            tokens.append(self._numbers[word[place : place + size]])
            place += size
        return tokens

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The token of each piece, the first of those that are equal."""
        return {piece: number for number, piece in reversed(list(enumerate(self.padded_vocabulary)))}

    def _words(self, tokens: Tensor) -> Iterator[str]:
        """The words of a text, given as letters, with what follows them: together they are the text."""
        rest = ""
        for part in tokens.split(BLOCK):
            text = rest + self.detokenize(part)
            end = text.rfind(" ") + 1  # a block may cut a word
            yield from WORD.findall(text[:end])
            rest = text[end:]
        yield from WORD.findall(rest)

    def spell(self, samples: Tensor) -> Tensor:
        letters = self._spellings.to(samples.device)[samples.argmax(1)].flatten(1)
        letters = F.pad(letters, (0, self.length), value=self.alphabet_size)
        order = (letters == self.alphabet_size).int().sort(dim=1, stable=True).indices[:, : self.length]
        letters = letters.gather(1, order)
        letters[letters == self.alphabet_size] = 0  # the space
        return F.one_hot(letters, self.alphabet_size).transpose(1, 2).float()

    @cached_property
    def _spellings(self) -> Tensor:
        """The letters of each token, int64 [vocabulary_size, 16], filled with `alphabet_size`."""
        rows = [self.tokenize(piece) for piece in self.padded_vocabulary]
        return torch.stack(
            [F.pad(row.long(), (0, LONGEST - len(row)), value=self.alphabet_size) for row in rows]
        )

    def decode(self, samples: Tensor) -> TextBatch:
        return TextBatch(samples.argmax(1), self.padded_vocabulary, self.length)

    def state_dict(self) -> dict[str, Any]:
        """The alphabet and the pieces, which Lightning stores in every checkpoint."""
        return super().state_dict() | {"pieces": self.pieces}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Sets alphabet and pieces from a checkpoint.

        Raises ValueError: they are too many or too long, or not those of the text.
        """
        super().load_state_dict(state_dict)
        pieces, most = state_dict.get("pieces", self.pieces), self.sample_shape[0] - self.alphabet_size
        if not isinstance(pieces, list) or len(pieces) > most or not all(map(self._is_piece, pieces)):
            raise ValueError(f"The checkpoint holds no {most} pieces or fewer of its letters: take another.")
        if self.pieces not in ([], pieces):
            raise ValueError(
                "The checkpoint has other pieces than this text: resume with the text that it was trained "
                "on, or start a new run with --init_from."
            )
        self.pieces = pieces

    def _is_piece(self, piece: Any) -> bool:
        return isinstance(piece, str) and 2 <= len(piece) <= LONGEST and set(piece) <= set(self.alphabet)


def learn_pieces(words: Iterator[str], alphabet: str, count: int) -> list[str]:
    """At most `count` pieces of several letters, in the order in which byte-pair encoding finds them."""
    tokenizers = require("tokenizers", "text")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=len(alphabet) + count, initial_alphabet=list(alphabet), max_token_length=LONGEST,
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(words, trainer)
    found = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return [piece for piece, _ in found if len(piece) > 1]
