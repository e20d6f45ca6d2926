"""Notes of piano rolls, and MIDI files of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

from litgan.extras import require

if TYPE_CHECKING:
    import mido

Note: TypeAlias = "tuple[int, int, int, int]"  # track, first step, step after the last, row

TICKS_PER_QUARTER = 480  # a quarter note
VELOCITY = 80
DRUM_CHANNEL = 9  # the channel of General MIDI's percussion, counted from 0


def sounding_and_onsets(roll: Tensor) -> tuple[Tensor, Tensor]:
    """Rolls [..., steps, pitches], bool, read as notes: (where a note sounds, where one begins), alike.

    A gap of one step between equal pitches parts two notes that are played without a gap.
    """
    before, after = roll.roll(1, -2), roll.roll(-1, -2)
    before[..., 0, :], after[..., -1, :] = False, False
    return roll | (before & after), roll & ~before


def notes_from_roll(roll: Tensor) -> list[Note]:
    """The notes of a roll [tracks, steps, pitches], bool, in the order in which they begin."""
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
    """A MIDI file of format 1: a track with tempo and time signature, then one track of notes per voice.

    Args:
        notes: in any order.
        tracks: voices; each gets its own channel, except the drum channel, and channels repeat after 15.
        lowest: MIDI number of row 0.
        steps_per_quarter: resolution of the notes.
        quarters_per_bar: numerator of the time signature, over 4.
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
        events = sorted(  # at equal times "note_off" comes before "note_on"
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
