"""Text as windows of characters, from any file; and a toy grammar whose valid sentences can be listed."""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain, product
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.data.files import FileCount
from litgan.noise import torch_generator
from litgan.text.corpus import (
    BLOCK,
    UNK,
    code_points,
    king_james_bible,
    learn_alphabet,
    normalized,
    read_file,
)
from litgan.text.render import TextBatch

WORD = re.compile(r"[^\W\d_]+")
PASSAGE_WINDOWS = 40  # length of a passage, in windows; every tenth passage is held out
MAX_ALPHABET_SIZE = 255  # tokens are stored as bytes, and `metrics.PAD` needs one value
MAX_COPIES = 1 << 26  # bytes; more windows than that are not stored but cut from the text when needed


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

    splits: tuple[str, ...] = ("train", "test")

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
        words, rest = set[str](), ""
        for part in self.corpus.split(BLOCK):
            text, _, rest = (rest + self.detokenize(part)).rpartition(" ")  # a block may cut a word
            text, rest = (rest, "") if len(rest) > BLOCK else (text, rest)  # there is no space
            words.update(WORD.findall(text))
        return frozenset(words.union(WORD.findall(rest)))

    def tokenize(self, text: str) -> Tensor:
        """The tokens of a text, uint8 [T]; characters outside the alphabet become `UNK` if it has a token.

        Raises ValueError: a character is outside the alphabet and all tokens are used.
        """
        table = np.full(0x110000, MAX_ALPHABET_SIZE, np.uint8)
        table[[ord(character) for character in self.alphabet]] = np.arange(len(self.alphabet))
        tokens = table[code_points(text)]
        unknown = tokens == MAX_ALPHABET_SIZE
        if unknown.any():
            if UNK not in self.padded_alphabet:
                raise ValueError(
                    f"The character {text[int(unknown.argmax())]!r} is outside the alphabet, whose "
                    f"{self.alphabet_size} tokens are all used: raise alphabet_size, or take it out of the "
                    "text."
                )
            tokens[unknown] = self.padded_alphabet.index(UNK)
        return torch.from_numpy(tokens)

    def detokenize(self, tokens: Tensor) -> str:
        """The text of tokens [T]."""
        codes = code_points(self.padded_alphabet)[tokens.cpu().numpy()]
        return codes.tobytes().decode("utf-32-le", "surrogatepass")

    @property
    def padded_alphabet(self) -> str:
        """The character of each token; unused tokens are `UNK`."""
        if not self.alphabet:
            self.load("train")
        return self.alphabet.ljust(self.alphabet_size, UNK)

    def encode(self, stored: Tensor) -> Tensor:
        return F.one_hot(stored.long(), self.sample_shape[0]).transpose(1, 2).float()

    def spell(self, samples: Tensor) -> Tensor:
        """The characters of samples, one-hot [N, alphabet_size, length]: what metrics compare."""
        return samples

    def decode(self, samples: Tensor) -> TextBatch:
        return TextBatch(samples.argmax(1), self.padded_alphabet)

    def state_dict(self) -> dict[str, Any]:
        """The alphabet, which Lightning stores in every checkpoint."""
        return {"alphabet": self.alphabet}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Sets the alphabet from a checkpoint.

        Raises ValueError: the checkpoint's alphabet is longer than `alphabet_size`, or not that of the text.
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

    def read(self, split: str) -> tuple[Tensor | Windows, None]:
        tokens, starts = self._text[0], torch.cat(list(self._starts(split)))
        self._report(split, len(starts))
        return windows(tokens, starts, self.length), None

    def _report(self, split: str, count: int) -> None:
        """Notes how many characters are unknown. Raises ValueError: the split has no window."""
        tokens, _ = self._text
        if not count:
            raise ValueError(
                f"{self.path or 'The text'} has {len(tokens)} characters, too few for a window of "
                f"{self.length} in the split {split!r}: give a longer text or a smaller length."
            )
        token = (self.alphabet + UNK).index(UNK)
        unknown = sum(np.count_nonzero(part == token) for part in tokens.split(BLOCK)) / len(tokens)
        remark = f"; {unknown:.2%} of the characters are outside the alphabet of {self.alphabet_size}"
        self.files[split] = FileCount(1, remark=f"{remark} and become unknown" if unknown else "")

    def _into_memory(self, *parts: Any) -> Any:
        return parts  # the text of `Windows` is in memory, and their copies take several times as much

    @cached_property
    def corpus(self) -> Tensor:
        passage, (tokens, _) = PASSAGE_WINDOWS * self.length, self._text
        complete = len(tokens) // (10 * passage) * 10 * passage
        training = tokens[:complete].view(-1, 10 * passage)[:, : 9 * passage].flatten()
        return torch.cat([training, tokens[complete:][: 9 * passage]])

    def _is_held_out(self, place: Any) -> Any:
        """Whether characters belong to the split "test", by their places in the text."""
        return place // (PASSAGE_WINDOWS * self.length) % 10 == 9

    def _starts(self, split: str) -> Iterator[Tensor]:
        """Places of the windows of a split, int32 or, in a long text, int64; in blocks."""
        tokens, lines = self._text
        kind = torch.int32 if len(tokens) < 1 << 31 else torch.int64
        space = self.alphabet.index(" ")
        words = (
            (part == space).nonzero().flatten() + number * BLOCK + 1
            for number, part in enumerate(tokens.split(BLOCK))
        )
        places = lines.split(BLOCK) if self.window_start == "lines" else chain([torch.zeros(1).long()], words)
        for starts in places:
            starts = starts[starts + self.length <= len(tokens)]
            sides = (self._is_held_out(starts), self._is_held_out(starts + self.length - 1))
            wanted = split == "test"
            yield starts[(sides[0] == wanted) & (sides[1] == wanted)].to(kind)

    @cached_property
    def _text(self) -> tuple[Tensor, Tensor]:
        """Tokens of the whole text, uint8 [T], and the places where its lines start, int64 [lines]."""
        if not self.alphabet:
            counts, place = np.zeros(0x110000, np.int64), 0
            for part, _ in normalized(self._blocks(), self.lower):
                codes = code_points(part)
                training = ~self._is_held_out(np.arange(place, place + len(codes)))
                counts += np.bincount(codes[training], minlength=len(counts))
                place += len(codes)
            used = counts.nonzero()[0]
            self.alphabet = learn_alphabet(
                Counter(dict(zip(map(chr, used), counts[used].tolist(), strict=True))), self.alphabet_size
            )
        tokens, lines = bytearray(), [torch.zeros(0, dtype=torch.int64)]
        for part, starts in normalized(self._blocks(), self.lower):
            lines.append(torch.tensor(starts, dtype=torch.int64) + len(tokens))
            tokens += self.tokenize(part).numpy().tobytes()
        found = torch.frombuffer(tokens, dtype=torch.uint8) if tokens else torch.zeros(0, dtype=torch.uint8)
        return found, torch.cat(lines)

    def _blocks(self) -> Iterable[str]:
        return [king_james_bible()] if self.path is None else read_file(self.path)


def windows(tokens: Tensor, starts: Tensor, length: int) -> Tensor | Windows:
    """Windows of tokens [T] from these places on, [N, length]; copies, unless they take much memory."""
    if len(starts) * length * tokens.itemsize > MAX_COPIES:
        return Windows(tokens, starts, length)
    return tokens.unfold(0, length, 1)[starts.long()]


class Windows:
    """Map-style data set of the windows of one text, [length]; they are cut when they are needed.

    Args:
        tokens: of the text, [T].
        starts: places of the windows, int [N].
        length: of a window.
    """

    def __init__(self, tokens: Tensor, starts: Tensor, length: int) -> None:
        self.tokens, self.starts, self.length = tokens, starts, length

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Tensor:
        start = int(self.starts[index])
        return self.tokens[start : start + self.length]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the text and of the windows' places."""
        digest = hashlib.blake2b(str(self.length).encode(), digest_size=16)
        for part in (self.tokens, self.starts):
            digest.update(part.numpy())  # type: ignore[arg-type]
        return digest.hexdigest()


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
