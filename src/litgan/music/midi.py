"""Notes of piano rolls, as MIDI files and as sound; without a package, so that every machine writes them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from torch import Tensor

Note: TypeAlias = "tuple[int, int, int, int]"  # track, first step, step after the last, row

TICKS = 480  # a quarter note
RATE = 16_000  # of the sound, per second
VELOCITY = 80
DRUMS = 9  # the channel of General MIDI's percussion, counted from 0


def hold(roll: Tensor) -> tuple[Tensor, Tensor]:
    """Rolls [..., steps, pitches], bool, read as notes: (where a note sounds, where one begins), alike.

    A gap of one step between equal pitches parts two notes that are played without a gap.
    """
    before, after = roll.roll(1, -2), roll.roll(-1, -2)
    before[..., 0, :], after[..., -1, :] = False, False
    return roll | (before & after), roll & ~before


def notes_of(roll: Tensor) -> list[Note]:
    """The notes of a roll [tracks, steps, pitches], bool, in the order in which they begin."""
    sounding, onset = hold(roll)
    found: list[Note] = []
    for track, step, row in onset.nonzero().tolist():
        end = step + 1
        while end < roll.shape[1] and sounding[track, end, row] and not onset[track, end, row]:
            end += 1
        found.append((track, step, end, row))
    return sorted(found, key=lambda note: note[1:2] + note[:1])


def midi_bytes(
    notes: Sequence[Note],
    *,
    tracks: int,
    lowest: int,
    steps_per_quarter: float,
    quarters_per_bar: int,
    tempo: int,
) -> bytes:
    """A standard MIDI file of format 1: a track with tempo and metre, then one track of notes a voice.

    Args:
        notes: in any order.
        tracks: voices; each gets a channel of its own, the drums' left out, in turn.
        lowest: MIDI number of row 0.
        steps_per_quarter: resolution of the notes.
        quarters_per_bar: metre.
        tempo: quarter notes a minute.
    """
    conductor = [
        (0, b"\xff\x51\x03" + round(60e6 / tempo).to_bytes(3, "big")),
        (0, bytes([0xFF, 0x58, 4, quarters_per_bar, 2, 24, 8])),
    ]
    chunks = [_chunk(conductor)]
    channels = [channel for channel in range(16) if channel != DRUMS]
    for track in range(tracks):
        channel, events = channels[track % len(channels)], []
        for _, start, end, row in (note for note in notes if note[0] == track):
            for step, status, velocity in ((start, 0x90, VELOCITY), (end, 0x80, 0)):
                tick = round(step * TICKS / steps_per_quarter)
                events.append((tick, bytes([status | channel, lowest + row, velocity])))
        chunks.append(_chunk(sorted(events)))  # at equal times 0x80, a note's end, comes before a beginning
    return b"MThd" + struct.pack(">IHHH", 6, 1, len(chunks), TICKS) + b"".join(chunks)


def _chunk(events: Sequence[tuple[int, bytes]]) -> bytes:
    """A track of (tick, message)."""
    body, now = b"", 0
    for tick, message in events:
        body += _variable(tick - now) + message
        now = tick
    body += b"\x00\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body)) + body


def _variable(number: int) -> bytes:
    """A quantity of variable length: seven bits a byte, the highest bit set in all but the last."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F | 0x80)
    return bytes(reversed(groups))


def synthesise(notes: Sequence[Note], *, lowest: int, steps_per_quarter: float, tempo: int) -> np.ndarray:
    """The notes as sound, int16 [samples] at `RATE`: four harmonics each, dying away like a string."""
    seconds = 60 / (tempo * steps_per_quarter)  # of a step
    length = round((max((note[2] for note in notes), default=0) * seconds + 0.5) * RATE)
    sound = np.zeros(length)
    for _, start, end, row in notes:
        first, time = round(start * seconds * RATE), np.arange(round((end - start) * seconds * RATE)) / RATE
        pitch = 440.0 * 2 ** ((lowest + row - 69) / 12)
        tone = sum(np.sin(2 * np.pi * k * pitch * time) / k**2 for k in range(1, 5) if k * pitch < RATE / 2)
        fade = np.minimum(1, np.minimum(time, time[::-1]) / 0.01)  # no clicks
        sound[first : first + len(time)] += tone * fade * np.exp(-1.5 * time)
    return np.round(sound / max(1e-9, np.abs(sound).max()) * 30_000).astype(np.int16)
