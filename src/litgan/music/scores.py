"""Reads scores as lists of notes: MIDI files with mido, Bach's chorales with music21."""

from __future__ import annotations

import io
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from litgan.data.files import Found, UnusableFileError, check_folder, find_files
from litgan.extras import require
from litgan.music.midi import DRUM_CHANNEL

SUFFIXES = (".mid", ".midi", ".smf", ".kar")
PARTS = ("Soprano", "Alto", "Tenor", "Bass")
MAX_BARS = 100_000  # a file with more is taken for damaged
MAX_BYTES = 1 << 24  # of a file: two million notes, which take half a minute
KEY_SIGNATURE = re.compile(rb"(\xff\x59[\x02-\x7f])..", re.DOTALL)


class Score(NamedTuple):
    """The notes and bars of a piece of music; times in quarter notes since its beginning."""

    notes: list[tuple[int, float, float, int]]  # track, start, end, MIDI pitch
    bars: list[tuple[float, float]]  # start, length


def find_midi(root: Path) -> Found:
    """The MIDI files in a folder and its subfolders, by their names relative to it.

    Raises FileNotFoundError: no such folder, or no such file in it.
    """
    return find_files(check_folder(root, "MIDI file"), SUFFIXES, "MIDI file")


def read_midi(path: Path) -> Score:
    """Reads a MIDI file without its drums.

    Each channel of each track of the file that has notes becomes a track, in the file's order.

    Raises:
        UnusableFileError: the file is damaged, no MIDI file, of type 2, too long, or has no notes.
        ImportError: mido is missing.
    """
    mido = require("mido", "music")
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"its {size:,} bytes are more than {MAX_BYTES:,}")
        raw = path.read_bytes()
        try:
            file = mido.MidiFile(file=io.BytesIO(raw))
        except mido.KeySignatureError:  # an impossible key, which we do not need
            file = mido.MidiFile(file=io.BytesIO(KEY_SIGNATURE.sub(rb"\1\0\0", raw)))
        if file.type == 2:
            raise ValueError("its type is 2, and its tracks are pieces of their own: convert it to type 1")
        ticks = file.ticks_per_beat
        if ticks <= 0:
            raise ValueError("its time is counted in seconds and not in beats")
        tracks = [list(_with_ticks(track)) for track in file.tracks]
    except (OSError, EOFError, ValueError, LookupError, mido.KeySignatureError) as error:
        raise UnusableFileError(path, f"is not a readable score ({_one_line(error)})") from error
    voices: dict[tuple[int, int], list[tuple[float, float, int]]] = defaultdict(list)
    bar_lengths, last = {0.0: 4.0}, 0.0
    for index, track in enumerate(tracks):
        open_notes: dict[tuple[int, int], int] = {}
        for tick, message in track:
            if message.type == "time_signature":
                bar_lengths[tick / ticks] = 4 * message.numerator / message.denominator
            elif message.type in ("note_on", "note_off") and message.channel != DRUM_CHANNEL:
                start = open_notes.pop((message.channel, message.note), None)
                if start is not None:
                    voices[index, message.channel].append((start / ticks, tick / ticks, message.note))
                    last = max(last, tick / ticks)
                if message.type == "note_on" and message.velocity:
                    open_notes[message.channel, message.note] = tick
    if last > MAX_BARS * min(bar_lengths.values()):
        raise UnusableFileError(
            path, f"is not a readable score (it has more than {MAX_BARS:,} bars, or bars of no length)"
        )
    if not voices:
        raise UnusableFileError(path, "has no notes, or only drums", "remove it")
    notes = [(number, *note) for number, key in enumerate(sorted(voices)) for note in voices[key]]
    return Score(notes, _bars(bar_lengths, last))


def list_chorales() -> list[Path]:
    """Returns the files of Bach's works in the corpus of music21, sorted by name; not all are chorales.

    Raises ImportError: music21 is missing.
    """
    require("music21", "music")
    from music21 import corpus

    scores = {Path(path) for path in corpus.getComposer("bach") if Path(path).suffix in (".mxl", ".xml")}
    return sorted(scores, key=lambda path: path.name)


def read_chorale(path: Path) -> Score | None:
    """Reads the four voices of a score, highest first; None unless it has soprano, alto, tenor and bass.

    Tied notes are merged, grace notes are dropped, and repeats are not expanded.
    """
    from music21 import converter, stream

    score: Any = converter.parse(path, forceSource=True)
    parts = list(score.parts)
    named = {part.partName: part for part in parts}
    if not set(PARTS) <= named.keys():
        return None
    notes: list[tuple[int, float, float, int]] = []
    for track, voice in enumerate(PARTS):
        ends: dict[tuple[float, int], int] = {}  # (end, pitch) -> index in notes
        for element in named[voice].flatten().notes:
            start, end = float(element.offset), float(element.offset + element.quarterLength)
            tied = element.tie is not None and element.tie.type in ("stop", "continue")
            for pitch in (pitch.midi for pitch in element.pitches) if end > start else ():
                index = ends.get((start, pitch)) if tied else None
                if index is None:
                    index = len(notes)
                    notes.append((track, start, end, pitch))
                else:
                    notes[index] = (track, notes[index][1], end, pitch)
                ends[end, pitch] = index
    measures = named[PARTS[0]].getElementsByClass(stream.Measure)
    return Score(notes, [(float(bar.offset), float(bar.quarterLength)) for bar in measures])


def _with_ticks(track):
    """Yields each message with its absolute time: (tick, message)."""
    tick = 0
    for message in track:
        tick += message.time
        yield tick, message


def _bars(bar_lengths: dict[float, float], last: float) -> list[tuple[float, float]]:
    """Returns start and length of each bar until `last`; a new time signature begins a bar."""
    bars, changes = [], sorted(bar_lengths.items())
    for (start, length), (stop, _) in zip(changes, [*changes[1:], (last, 0.0)], strict=True):
        while start < stop - 1e-6:
            bars.append((start, min(length, stop - start) if stop < last else length))
            start += length
    return bars


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".:")
