"""A text, read block by block, and its characters."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from litgan.data.files import progress

UNK = "\N{REPLACEMENT CHARACTER}"  # replaces characters outside the alphabet
VERSE = re.compile(r"^\w+:\d+ ", re.MULTILINE)  # the label that `bible -f` prints before a verse
BLOCK = 1 << 20  # bytes or characters of a text that are processed at once
LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # of str.splitlines


def learn_alphabet(counts: Counter[str], size: int) -> str:
    """At most `size` characters of a text: the space, the most frequent, `UNK` if there are more."""
    ranked = sorted(counts.keys() - {" ", UNK}, key=lambda character: (-counts[character], character))
    alphabet = [" ", *ranked]
    return "".join(alphabet if len(alphabet) <= size else [*alphabet[: size - 1], UNK])


def code_points(text: str) -> np.ndarray:
    """uint32 [characters]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def normalized(blocks: Iterable[str], lower: bool) -> Iterator[tuple[str, list[int]]]:
    """Parts of a text with runs of white space as one space, and the places in each where lines start."""
    rest, is_first, is_new_line, is_cut = "", True, True, False
    for block in chain(blocks, [None]):
        text = rest + (block or "")
        # At white space, so that lower case, which depends on neighbors, is that of whole words.
        end = len(text) if block is None else max(text.rfind(" "), text.rfind("\n")) + 1 or len(text)
        part, rest = text[:end], text[end:]
        if not part:
            continue
        pieces = [" ".join(line.split()) for line in (part.lower() if lower else part).splitlines()]
        found, starts, length = list[str](), list[int](), 0
        for number, piece in enumerate(pieces):
            if not piece:
                continue
            joined = number == 0 and is_cut and not part[0].isspace()
            separator = "" if is_first or joined else " "
            if number or is_new_line:
                starts.append(length + len(separator))
            found.append(separator + piece)
            length, is_first = length + len(found[-1]), False
        is_cut = not part[-1].isspace()
        is_new_line = part[-1] in LINE_BREAKS or (not pieces[-1] and (len(pieces) > 1 or is_new_line))
        yield "".join(found), starts


def read_file(path: str) -> Iterator[str]:
    """The text of a file, without a byte-order mark, in blocks.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not UTF-8.
    """
    place = Path(path).expanduser()
    if place.is_dir() or (place.is_file() and not os.access(place, os.R_OK)):
        raise OSError(f"{path} is a folder or may not be read: give data.path a UTF-8 file that may.")
    if not place.is_file():
        raise FileNotFoundError(f"There is no text at {path}: give the path of a UTF-8 file.")
    decoder, size = codecs.getincrementaldecoder("utf-8")(), place.stat().st_size
    with place.open("rb") as file:
        if file.read(3) != codecs.BOM_UTF8:
            file.seek(0)
        for start in progress(range(file.tell(), size + 1, BLOCK), "reading text"):
            block = file.read(BLOCK)
            pending = len(decoder.getstate()[0])
            try:
                yield decoder.decode(block, final=start + BLOCK > size)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8 (byte {start - pending + error.start} is "
                    f"{error.object[error.start]:#04x}): convert it, for example with iconv."
                ) from error


def king_james_bible() -> str:
    """The King James Bible as Debian's package prints it, without verse labels.

    Raises FileNotFoundError: the package is not installed.
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
