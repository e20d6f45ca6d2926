"""Converts piano rolls to notes, and notes to MIDI files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from litgan.extras import require

if TYPE_CHECKING:
    import mido

Note: TypeAlias = "tuple[int, int, int, int]"  # track, first step, step after the last, row (pitch)

TICKS_PER_QUARTER = 480
VELOCITY = 80
DRUM_CHANNEL = 9  # percussion in General MIDI, counted from 0


def sounding_and_onsets(roll: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cells of bool rolls [..., steps, pitches] where a note sounds, and those where one begins.

    A gap of one step between two notes of the same pitch only separates them: the first note also sounds in
    the gap. Both results have the shape of `roll`.
    """
    before, after = roll.roll(1, -2), roll.roll(-1, -2)
    before[..., 0, :], after[..., -1, :] = False, False
    return roll | (before & after), roll & ~before


def notes_from_roll(roll: Tensor) -> list[Note]:
    """Returns the notes of a bool roll [tracks, steps, pitches], ordered by first step, then by track."""
    sounding, onset = sounding_and_onsets(roll)
    notes: list[Note] = []
    for track, step, row in onset.nonzero().tolist():
        end = step + 1
        while end < roll.shape[1] and sounding[track, end, row] and not onset[track, end, row]:
            end += 1
        notes.append((track, step, end, row))
    return sorted(notes, key=lambda note: note[1:2] + note[:1])


def to_midi_file(
    notes: Sequence[Note],
    *,
    tracks: int,
    lowest: int,
    steps_per_quarter: float,
    quarters_per_bar: int,
    tempo: int,
) -> mido.MidiFile:
    """Returns a MIDI file of format 1: a track with tempo and time signature, then a track per voice.

    Args:
        notes: in any order.
        tracks: number of voices. Each gets its own channel, never the drum channel; after 15 voices the
            channels repeat.
        lowest: MIDI number of row 0.
        steps_per_quarter: resolution of the notes.
        quarters_per_bar: numerator of the time signature; the denominator is 4.
        tempo: quarter notes per minute.

    Raises:
        ImportError: mido is missing.
    """
    mido = require("mido", "music")
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER)
    meter = mido.MetaMessage("time_signature", numerator=quarters_per_bar, denominator=4)
    file.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo)), meter]))
    channels = [channel for channel in range(16) if channel != DRUM_CHANNEL]
    for track in range(tracks):
        events = sorted(  # at equal ticks "note_off" precedes "note_on", so that repeated notes work
            (round(step * TICKS_PER_QUARTER / steps_per_quarter), kind, lowest + row, velocity)
            for number, start, end, row in notes
            if number == track
            for step, kind, velocity in ((start, "note_on", VELOCITY), (end, "note_off", 0))
        )
        messages, previous, channel = mido.MidiTrack(), 0, channels[track % len(channels)]
        for tick, kind, pitch, velocity in events:
            messages.append(
                mido.Message(kind, channel=channel, note=pitch, velocity=velocity, time=tick - previous)
            )
            previous = tick
        file.tracks.append(messages)
    return file
