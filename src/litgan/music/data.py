"""Data module of music: a folder of MIDI files, or the Bach chorales that come with music21."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from litgan.data.files import FileCount, read_each
from litgan.extras import require
from litgan.files import atomic_write
from litgan.music.rolls import PianoRolls, to_piano_roll
from litgan.music.scores import Score, find_midi, list_chorales, read_chorale, read_midi

CACHE_VERSION = 1  # increment it when the content of the cache or its computation changes
TEST_EVERY = 10  # one piece out of so many is in the split "test"


class Music(PianoRolls):
    """Any folder of MIDI files, or Bach's four-part chorales.

    Windows are `bars` consecutive bars of `quarters_per_bar` quarter notes. They overlap: one begins at every
    bar. Windows that are silent, or contain a bar of another length (an upbeat, another time signature), are
    left out. Every tenth piece, ordered by name, belongs to the split "test". Windows are cached in
    $LITGAN_CACHE, by default ~/.cache/litgan.

    Args:
        root: folder of MIDI files, with subfolders, read with mido. A track is a track of the file,
            or a channel of one, that has notes; drums (channel 10) are left out. The first `tracks` of them
            are used; missing ones are silent. None uses the chorales in the corpus of music21, whose tracks
            are soprano, alto, tenor and bass; the first use takes minutes. `pip install litgan[music]`
            installs both packages.
        tracks: number of tracks of a roll.
        bars: length of a window.
        steps_per_bar: time steps per bar; notes begin and end at the nearest step.
        quarters_per_bar: length of a bar in quarter notes.
        lowest: MIDI number of the lowest pitch.
        pitches: number of semitones from `lowest` upwards; other notes are left out.
        transpose: see `PianoRolls`.
        skip_unusable: leave out files that are damaged or have no notes.
        common: `batch_size`, `seed`, `memory`: see `GANDataModule`.

    Raises:
        ValueError: more than four tracks of the chorales, or an invalid option; see `PianoRolls`. When the
            data is read: unreadable files, files without notes, or no window at all.
        FileNotFoundError: `root` does not exist or contains no MIDI file.
        ImportError: music21 or mido is missing.
    """

    def __init__(
        self,
        root: str | None = None,
        tracks: int = 4,
        bars: int = 2,
        steps_per_bar: int = 16,
        quarters_per_bar: int = 4,
        lowest: int = 36,
        pitches: int = 48,
        transpose: int = 0,
        skip_unusable: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(
            tracks, bars, steps_per_bar, lowest, pitches,
            quarters_per_bar=quarters_per_bar, transpose=transpose, **common,
        )  # fmt: skip
        if root is None and tracks > 4:
            raise ValueError(f"A chorale has 4 voices and data.tracks is {tracks}: give 1 to 4.")
        self.root, self.skip_unusable = root, skip_unusable

    def read(self, split: str) -> tuple[Tensor, None]:
        rolls, piece_ids = self._load_windows(split)
        held_out = piece_ids % TEST_EVERY == TEST_EVERY - 1
        chosen = rolls[held_out if split == "test" else ~held_out]
        if not len(chosen):
            raise ValueError(
                f"{self._source} has no window for the split {split!r}, which takes every tenth piece: "
                "put more MIDI files into it."
            )
        return torch.from_numpy(chosen), None

    @property
    def _source(self) -> str:
        return "The corpus of music21" if self.root is None else str(self.root)

    def _load_windows(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns all windows, uint8 [N, *sample_shape], and the piece index of each, int [N]."""
        others = Counter[str]()
        if self.root is None:
            files, versions = list_chorales(), [require("music21", "music").__version__]
        else:
            root = Path(self.root).expanduser()
            found, others = find_midi(root)
            files = sorted(root / name for name in found)
            versions = [(stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, files)]
        options = (*self.sample_shape, self.bars, self.quarters_per_bar, self.lowest)
        names = [str(path) if self.root else path.name for path in files]
        key = json.dumps([CACHE_VERSION, options, names, versions, *(["skip"] if self.skip_unusable else [])])
        folder = Path(os.environ.get("LITGAN_CACHE") or "~/.cache/litgan").expanduser()
        path = folder / f"rolls-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.npz"
        cached = load_packed(path)
        if cached is None:
            cached = self._parse_files(files)
            save_packed(path, *cached)
        rolls, piece_ids, unusable = cached
        pieces = int(piece_ids[-1]) + 1
        held_out = pieces // TEST_EVERY
        others |= {"unusable": unusable, "without a window": len(files) - unusable - pieces}
        read, other_split = (
            (held_out, pieces - held_out) if split == "test" else (pieces - held_out, held_out)
        )
        self.files[split] = FileCount(read, other_split, +others)
        return rolls, piece_ids

    def _parse_files(self, files: Sequence[Path]) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns the windows, the piece index of each, and the number of unusable files."""
        read = read_chorale if self.root is None else read_midi
        rolls: list[np.ndarray] = []
        piece_ids: list[int] = []
        unusable = 0

        def windows_of(path: Path) -> list[np.ndarray]:
            score = read(path)
            return [] if score is None else list(self._extract_windows(score))  # None: not in four voices

        option = None if self.root is None else self.skip_unusable
        for windows in read_each(windows_of, files, "reading music", skip=option, threads=False):
            unusable += windows is None
            rolls += windows or []
            piece_ids += [piece_ids[-1] + 1 if piece_ids else 0] * len(windows or [])
        if not rolls:
            raise ValueError(
                f"{self._source} has no window of {self.bars} bars of {self.quarters_per_bar} quarters with "
                f"notes from {self.lowest} to {self.lowest + self.pitches - 1}: change data.bars, "
                "data.quarters_per_bar, data.lowest or data.pitches."
            )
        return np.stack(rolls), np.array(piece_ids, dtype=np.int64), unusable

    def _extract_windows(self, score: Score) -> Iterator[np.ndarray]:
        """Yields the windows of a piece in order of time."""
        rate = self.steps_per_bar / self.quarters_per_bar
        steps = self.sample_shape[1]
        starts = [round(start * rate) for start, _ in score.bars]
        inside: list[list[tuple[int, int, int, int]]] = [
            [] for _ in starts
        ]  # notes by the windows they are in
        for note in self.notes_in_steps(score):
            for window in range(bisect_right(starts, note[1] - steps), bisect_left(starts, note[2])):
                inside[window].append(note)
        regular = [abs(length - self.quarters_per_bar) < 1e-6 for _, length in score.bars]
        for first in range(len(score.bars) - self.bars + 1):
            if all(regular[first : first + self.bars]):
                roll = to_piano_roll(inside[first], starts[first], self.sample_shape)
                if roll.any():
                    yield roll


def save_packed(path: Path, rolls: np.ndarray, piece_ids: np.ndarray, unusable: int = 0) -> None:
    """Writes rolls atomically, eight cells per byte; warns if the folder cannot be written."""
    try:
        with atomic_write(path) as partial, partial.open("wb") as file:
            shape, packed = np.array(rolls.shape), np.packbits(rolls)
            np.savez(file, packed=packed, shape=shape, pieces=piece_ids, unusable=np.array(unusable))
    except OSError as error:
        warnings.warn(
            f"The piano rolls are not cached ({error}): set LITGAN_CACHE to a writable folder.", stacklevel=2
        )


def load_packed(path: Path) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Reads what `save_packed` wrote; None if there is no file, or, with a warning, if it is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as archive:
            shape = tuple(archive["shape"])
            rolls = np.unpackbits(archive["packed"], count=int(np.prod(shape))).reshape(shape)
            return rolls, archive["pieces"], int(archive["unusable"]) if "unusable" in archive else 0
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        warnings.warn(f"{path} is unreadable ({error}): the music is read again.", stacklevel=2)
        return None
