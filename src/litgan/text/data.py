"""Text as windows of characters, from any file; and a toy grammar whose valid sentences can be listed."""

from __future__ import annotations

import re
import subprocess
from abc import abstractmethod
from collections import Counter
from functools import cached_property
from itertools import compress, product
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.noise import torch_generator
from litgan.text.render import TextBatch

UNK = "\N{REPLACEMENT CHARACTER}"  # replaces characters outside the alphabet
WORD = re.compile(r"[^\W\d_]+")
VERSE = re.compile(r"^\w+:\d+ ", re.MULTILINE)  # the label that `bible -f` prints before a verse
PASSAGE_WINDOWS = 40  # length of a passage, in windows; every tenth passage is held out
MAX_ALPHABET_SIZE = 255  # tokens are stored as bytes, and `metrics.PAD` needs one value


class CharacterData(GANDataModule):
    """Windows of characters: stored tokens, uint8 [N, length]; one-hot samples [N, alphabet_size, length].

    Token i is character i of `alphabet`, which starts with the space. Checkpoints contain the alphabet, so
    samples can be decoded without the text.

    Args:
        alphabet_size: number of tokens; a text with fewer characters leaves some unused.
        length: characters of a window.

    Raises:
        ValueError: `alphabet_size` is not between 2 and 255, or `length` is less than 1.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def __init__(self, alphabet_size: int, length: int, **common: Any) -> None:
        if not 2 <= alphabet_size <= MAX_ALPHABET_SIZE or length < 1:
            raise ValueError(
                f"Windows of {length} characters from an alphabet of {alphabet_size} cannot be stored: give "
                f"a length of at least 1 and an alphabet_size of 2 to {MAX_ALPHABET_SIZE}."
            )
        super().__init__((alphabet_size, length), **common)
        self.alphabet_size, self.length = alphabet_size, length
        self.alphabet = ""  # until the text is read or a checkpoint is loaded

    @cached_property
    @abstractmethod
    def corpus(self) -> Tensor:
        """The whole training text as tokens, uint8 [T]."""

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The words of the training text: runs of letters."""
        return frozenset(WORD.findall(self.detokenize(self.corpus)))

    def tokenize(self, text: str) -> Tensor:
        """The tokens of a text, uint8 [T]; characters outside the alphabet become `UNK` if it has a token.

        Raises:
            ValueError: a character is outside the alphabet and all tokens are used.
        """
        table = {ord(character): token for token, character in enumerate(self.alphabet)}
        unknown = set(text) - set(self.alphabet)
        if unknown and UNK not in self.padded_alphabet:
            first = next(character for character in text if character in unknown)
            raise ValueError(
                f"The character {first!r} is outside the alphabet, whose {self.alphabet_size} tokens "
                "are all used: raise alphabet_size, or take it out of the text."
            )
        table |= {ord(character): self.padded_alphabet.index(UNK) for character in unknown}
        return torch.from_numpy(np.frombuffer(text.translate(table).encode("latin-1"), np.uint8).copy())

    def detokenize(self, tokens: Tensor) -> str:
        """The text of tokens [T]."""
        return "".join(map(self.padded_alphabet.__getitem__, tokens.tolist()))

    @property
    def padded_alphabet(self) -> str:
        """The character of each token; unused tokens are `UNK`."""
        if not self.alphabet:
            self.load("train")
        return self.alphabet.ljust(self.alphabet_size, UNK)

    def encode(self, stored: Tensor) -> Tensor:
        return F.one_hot(stored.long(), self.alphabet_size).transpose(1, 2).float()

    def decode(self, samples: Tensor) -> TextBatch:
        return TextBatch(samples.argmax(1), self.padded_alphabet)

    def state_dict(self) -> dict[str, Any]:
        """The alphabet, which Lightning stores in every checkpoint."""
        return {"alphabet": self.alphabet}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Sets the alphabet from a checkpoint.

        Raises:
            ValueError: the checkpoint's alphabet is longer than `alphabet_size`, or not that of the text.
        """
        alphabet = state_dict.get("alphabet", self.alphabet)
        if not isinstance(alphabet, str) or len(alphabet) > self.alphabet_size:
            raise ValueError(
                f"The checkpoint holds no alphabet of {self.alphabet_size} characters or fewer: take another."
            )
        if self.alphabet not in ("", alphabet):
            raise ValueError(
                f"The checkpoint has the alphabet {alphabet!r}, this text has {self.alphabet!r}: "
                "resume with the text that it was trained on, or start a new run with --init_from."
            )
        self.alphabet = alphabet


class Text(CharacterData):
    """Any UTF-8 file, or the King James Bible; runs of white space become one space.

    Every tenth passage of 40 windows is held out as the split "test". The alphabet is the most frequent
    characters of the training text; the others become `UNK`.

    Args:
        path: of the file; None for the text that Debian's `bible` prints, without its verse labels.
        length: characters of a window.
        alphabet_size: number of tokens, at most 255.
        lower: whether the text is converted to lower case.
        window_start: a window starts at every word ("words") or only at every line ("lines").
        common: `batch_size`, `seed`, `memory`: see `GANDataModule`.

    Raises:
        FileNotFoundError: the file or the command `bible` does not exist.
        ValueError: the file is not UTF-8, is shorter than a window, or has a character outside a
            checkpoint's alphabet.
    """

    def __init__(
        self,
        path: str | None = None,
        length: int = 32,
        alphabet_size: int = 64,
        lower: bool = False,
        window_start: Literal["words", "lines"] = "words",
        **common: Any,
    ) -> None:
        super().__init__(alphabet_size, length, **common)
        self.path, self.lower, self.window_start = path, lower, window_start

    def read(self, split: str) -> tuple[Tensor, None]:
        tokens, starts, in_split = self._tokens(split)
        starts = starts[starts + self.length <= len(tokens)]
        starts = starts[in_split[starts] & in_split[starts + self.length - 1]]
        if not len(starts):
            raise ValueError(
                f"{self.path or 'The text'} has {len(tokens)} characters, too few for a window of "
                f"{self.length} in the split {split!r}: give a longer text or a smaller length."
            )
        return tokens.unfold(0, self.length, 1)[starts], None

    @cached_property
    def corpus(self) -> Tensor:
        tokens, _, in_split = self._tokens("train")
        return tokens[in_split]

    def _tokens(self, split: str) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of the whole text, uint8 [T]; indices of window starts; mask of the split, bool [T]."""
        text = king_james_bible() if self.path is None else read_file(self.path)
        lines = (text.lower() if self.lower else text).splitlines()
        lines = [line for line in (" ".join(line.split()) for line in lines) if line]
        text = " ".join(lines)
        held_out = torch.arange(len(text)) // (PASSAGE_WINDOWS * self.length) % 10 == 9
        if not self.alphabet:
            training = "".join(compress(text, (~held_out).tolist()))
            self.alphabet = learn_alphabet(training, self.alphabet_size)
        tokens = self.tokenize(text)
        ends = torch.tensor([len(line) for line in lines], dtype=torch.int64).add(1).cumsum(0)
        if self.window_start == "words":
            ends = (tokens == self.alphabet.index(" ")).nonzero().flatten() + 1
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
        return tokens, starts, held_out if split == "test" else ~held_out


class Grammar(CharacterData):
    """Sentences of a toy grammar, such as "one hen feeds two dogs": 400 of them, all equally probable.

    The verb agrees with the number at the start of the sentence, a dependency too long for Markov chains of
    low order. Sentences are padded with spaces.

    Args:
        samples: size of each split.
        common: `batch_size`, `seed`, `memory`: see `GANDataModule`.
    """

    NOUNS, VERBS = ("cat", "dog", "hen", "owl", "pig"), ("see", "hear", "feed", "meet")
    LENGTH = 24  # the longest sentence has 22 characters

    def __init__(self, samples: int = 20_000, **common: Any) -> None:
        self.language = self.sentences()
        letters = sorted(set("".join(self.language)))  # sorted: the space is first
        super().__init__(len(letters), self.LENGTH, **common)
        self.samples, self.alphabet = samples, "".join(letters)

    @classmethod
    def sentences(cls) -> list[str]:
        """All sentences: noun phrase, verb, noun phrase."""
        noun_phrases = [f"one {noun}" for noun in cls.NOUNS] + [f"two {noun}s" for noun in cls.NOUNS]
        return [
            f"{subject} {verb}{'s' if subject.startswith('one') else ''} {thing}"
            for subject, verb, thing in product(noun_phrases, cls.VERBS, noun_phrases)
        ]

    @classmethod
    def valid(cls, texts: list[str]) -> float:
        """The fraction of the texts that are sentences of the grammar."""
        language = set(cls.sentences())
        return sum(text.rstrip() in language for text in texts) / len(texts)

    def read(self, split: str) -> tuple[Tensor, None]:
        sentences = torch.stack([self.tokenize(sentence.ljust(self.length)) for sentence in self.language])
        chosen = torch.randint(len(sentences), (self.samples,), generator=torch_generator("grammar", split))
        return sentences[chosen], None

    @cached_property
    def corpus(self) -> Tensor:
        return self.read("train")[0].flatten()


def learn_alphabet(text: str, size: int) -> str:
    """At most `size` characters of a text: the space, the most frequent, `UNK` if there are more."""
    counts = Counter(text)
    ranked = sorted(counts.keys() - {" ", UNK}, key=lambda character: (-counts[character], character))
    alphabet = [" ", *ranked]
    return "".join(alphabet if len(alphabet) <= size else [*alphabet[: size - 1], UNK])


def read_file(path: str) -> str:
    """The text of a file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not UTF-8.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no text at {path}: give the path of a UTF-8 file.")
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (byte {error.start} is {error.object[error.start]:#04x}): convert it, for "
            "example with iconv."
        ) from error


def king_james_bible() -> str:
    """The King James Bible as Debian's package prints it, without verse labels.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    try:
        command = ["bible", "-f", "gen1:1-rev22:21"]
        printed = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise FileNotFoundError(
            "The command bible, which prints it, is not installed: apt-get install bible-kjv brings it, "
            "or give the path of any text file."
        ) from error
    return VERSE.sub("", printed.stdout)
