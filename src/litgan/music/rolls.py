"""Data modules of piano rolls: the base class, and a toy data set whose correct notes are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from litgan.data import Transform
from litgan.data.base import GANDataModule
from litgan.music.midi import Note
from litgan.music.render import RollBatch
from litgan.music.scores import Score, read_midi
from litgan.noise import Noise, torch_generator
from litgan.options import check_counts


class PianoRolls(GANDataModule):
    """Windows of music, stored as uint8 [N, tracks, steps, pitches]: 1 where a note sounds, else 0.

    Networks get the same values as floats: silence is 0, which is also the padding of convolutions. Two
    consecutive notes of the same pitch would merge into one; so the first one is shortened by a step, unless
    it has only one, and `RollBatch` does not play such a gap of one step.

    Args:
        tracks: number of voices or instruments.
        bars: length of a window.
        steps_per_bar: time steps per bar; 16 are sixteenth notes if a bar has four quarters.
        lowest: MIDI number of the lowest pitch; 60 is middle C.
        pitches: number of semitones from `lowest` upwards.
        quarters_per_bar: length of a bar in quarter notes.
        transpose: largest random transposition in semitones, up or down; each time a window is used, one is
            drawn uniformly from those that keep all its notes in the roll.
        common: `batch_size`, `seed`, `memory`: see `GANDataModule`.

    Raises:
        ValueError: an option below its minimum, or pitches outside of MIDI's range 0 to 127.
    """

    splits: tuple[str, ...] = ("train", "test")

    def __init__(
        self,
        tracks: int,
        bars: int,
        steps_per_bar: int,
        lowest: int,
        pitches: int,
        *,
        quarters_per_bar: int = 4,
        transpose: int = 0,
        **common: Any,
    ) -> None:
        check_counts("data.", tracks=tracks, bars=bars, steps_per_bar=steps_per_bar, pitches=pitches)
        check_counts("data.", quarters_per_bar=quarters_per_bar)
        check_counts("data.", least=0, transpose=transpose)
        if lowest < 0 or lowest + pitches > 128:
            raise ValueError(
                f"{pitches} pitches from {lowest} leave the range of MIDI, 0 to 127: give data.lowest and "
                "data.pitches that stay in it."
            )
        super().__init__((tracks, bars * steps_per_bar, pitches), **common)
        self.tracks, self.bars, self.steps_per_bar = tracks, bars, steps_per_bar
        self.lowest, self.pitches, self.transpose = lowest, pitches, transpose
        self.quarters_per_bar = quarters_per_bar

    def encode(self, stored: Tensor) -> Tensor:
        return stored.float()

    def decode(self, samples: Tensor) -> RollBatch:
        """Rolls with a note wherever a sample is above one half."""
        sounding = (samples.detach() > 0.5).to(torch.uint8).cpu()
        return RollBatch(
            sounding,
            steps_per_bar=self.steps_per_bar,
            lowest=self.lowest,
            quarters_per_bar=self.quarters_per_bar,
        )

    def read_sample(self, path: str | Path) -> Tensor:
        """The first tracks of a MIDI file in whole bars, of any number; missing tracks are silent.

        Raises ValueError: it is unreadable, or has no notes, or some that are not among the pitches.
        """
        score = read_midi(Path(path))
        pitches = [pitch for track, _, _, pitch in score.notes if track < self.tracks]
        highest = self.lowest + self.pitches - 1
        if min(pitches) < self.lowest or max(pitches) > highest:
            raise ValueError(
                f"{path} has notes from {min(pitches)} to {max(pitches)}, and rolls have {self.lowest} to "
                f"{highest}: transpose it."
            )
        notes = self.notes_in_steps(score)
        bars = -(-max(end for _, _, end, _ in notes) // self.steps_per_bar)
        shape = (self.tracks, bars * self.steps_per_bar, self.pitches)
        return self.encode(torch.from_numpy(to_piano_roll(notes, 0, shape)))

    def notes_in_steps(self, score: Score) -> list[Note]:
        """The notes of a score that are in the rolls' tracks and pitches, at the nearest steps."""
        rate = self.steps_per_bar / self.quarters_per_bar
        return [
            (track, round(start * rate), max(round(end * rate), round(start * rate) + 1), pitch - self.lowest)
            for track, start, end, pitch in score.notes
            if track < self.tracks and 0 <= pitch - self.lowest < self.pitches
        ]

    def augment(self, stored: Tensor, noise: Noise) -> Tensor:
        """Transposes each window by a random number of semitones, which may be 0."""
        if not self.transpose:
            return stored
        sounding = stored.flatten(1, 2).amax(1).int()  # [B, pitches]
        below = sounding.argmax(1).clamp(max=self.transpose)
        above = sounding.flip(1).argmax(1).clamp(max=self.transpose)
        shift = (noise.uniform().to(below.device) * (below + above + 1)).long() - below
        pitch = torch.arange(self.pitches, device=stored.device) - shift[:, None]
        source = pitch.remainder(self.pitches)[:, None, None].expand(stored.shape)
        return stored.gather(3, source)  # the rows that wrap around are silent


class GivenTracks(Transform):
    """Rolls in which only the first `count` tracks sound, e.g. the soprano."""

    def __init__(self, count: int = 1) -> None:
        if count < 1:
            raise ValueError(f"GivenTracks keeps {count} tracks: give at least 1.")
        self.count = count

    def __call__(self, samples: Tensor) -> Tensor:
        return torch.cat([samples[:, : self.count], torch.zeros_like(samples[:, self.count :])], 1)


class Scales(PianoRolls):
    """Random melodies in one major scale: a toy data set in which wrong notes can be counted.

    Each track is a random walk on the scale, by at most two degrees per note, with notes of 1, 2 or 4 steps
    and a random first degree. `in_scale` returns the fraction of correct notes.

    Args:
        tracks: number of simultaneous melodies.
        bars: length of a window.
        steps_per_bar: time steps per bar.
        tonic: pitch class of the scale's first degree, 0 (C) to 11 (B).
        lowest: MIDI number of the lowest pitch.
        pitches: number of semitones from `lowest` upwards.
        samples: size of each split.
        transpose: see `PianoRolls`; transposed windows are in other scales.
        common: `batch_size`, `seed`, `memory`: see `GANDataModule`.

    Raises:
        ValueError: no pitch is in the scale, or an invalid option; see `PianoRolls`.
    """

    degrees: ClassVar[tuple[int, ...]] = (0, 2, 4, 5, 7, 9, 11)  # semitones above the tonic

    def __init__(
        self,
        tracks: int = 2,
        bars: int = 2,
        steps_per_bar: int = 8,
        tonic: int = 0,
        lowest: int = 48,
        pitches: int = 24,
        samples: int = 4096,
        transpose: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(tracks, bars, steps_per_bar, lowest, pitches, transpose=transpose, **common)
        classes = (torch.arange(lowest, lowest + pitches) - tonic) % 12
        self.allowed = torch.isin(classes, torch.tensor(self.degrees))  # bool [pitches]
        if not 0 <= tonic < 12 or not self.allowed.any():
            raise ValueError(
                f"{pitches} pitches from {lowest} hold no note of the scale on {tonic}: give data.tonic "
                "0 to 11 and more pitches."
            )
        self.tonic, self.samples = tonic, samples

    def read(self, split: str) -> tuple[Tensor, None]:
        rng = torch_generator("Scales", split)
        scale = self.allowed.nonzero().flatten()
        tracks, steps, _ = self.sample_shape
        lines = self.samples * tracks
        position = torch.randint(len(scale), (lines,), generator=rng)
        duration = torch.zeros(lines, dtype=torch.int64)  # of the current note, in steps
        remaining = torch.zeros(lines, dtype=torch.int64)  # steps of it that remain
        rolls = torch.zeros(lines, steps, self.pitches, dtype=torch.uint8)
        for step in range(steps):
            jumps = torch.randint(-2, 3, (lines,), generator=rng)
            durations = 2 ** torch.randint(3, (lines,), generator=rng)
            starts = remaining == 0
            if step:
                before = rolls[:, step - 1]
                next_position = torch.where(starts, (position + jumps).clamp(0, len(scale) - 1), position)
                repeated = starts & (next_position == position)
                before[repeated & (duration > 1)] = 0  # the gap before a repeated note
                position = next_position
            duration = torch.where(starts, durations, duration)
            remaining = torch.where(starts, durations, remaining) - 1
            rolls[torch.arange(lines), step, scale[position]] = 1
        return rolls.view(self.samples, *self.sample_shape), None

    def in_scale(self, samples: Tensor) -> float:
        """Returns the fraction of sounding cells of samples [N, *sample_shape] in the scale, or 0."""
        sounding = (samples > 0.5).sum((0, 1, 2)).cpu().double()
        return (sounding[self.allowed].sum() / sounding.sum().clamp_min(1)).item()


def to_piano_roll(
    notes: Sequence[tuple[int, int, int, int]], start: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Returns the piano roll, uint8 [tracks, steps, pitches], of the notes from step `start` on.

    Args:
        notes: (track, first step, step after the last, row), in any order.
        start: step of `notes` that becomes step 0; notes outside of the roll are dropped or cut.
        shape: [tracks, steps, pitches].
    """
    tracks, steps, pitches = shape
    roll = np.zeros(shape, dtype=np.uint8)
    starts: dict[tuple[int, int], int] = {}
    for begin, end, track, row in sorted((b - start, e - start, t, r) for t, b, e, r in notes):
        if end <= 0 or begin >= steps or track >= tracks or not 0 <= row < pitches:
            continue
        begin = max(begin, 0)
        if starts.get((track, row), begin) < begin - 1:
            roll[track, begin - 1, row] = 0  # the gap before a repeated note
        roll[track, begin:end, row] = 1
        starts[track, row] = begin
    return roll
