"""Renders piano rolls as pictures, MIDI files and sound."""

from __future__ import annotations

import wave
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from litgan.files import atomic_write
from litgan.music.midi import Note, notes_from_roll, to_midi_file
from litgan.music.synthesis import SAMPLE_RATE, synthesize
from litgan.render import SampleBatch, signed_heat, tile, tile_pairs

if TYPE_CHECKING:
    import mido

CELL_SIZE = (4, 3)  # pixels: width of a step, height of a pitch
TEMPO = 90  # quarter notes per minute
MAX_PLAYED = 8  # samples that are made to sound
BACKGROUND, BLACK_KEY = (250, 250, 247), (240, 240, 236)
BEAT_LINE, BAR_LINE = (228, 228, 222), (150, 150, 145)
TRACK_COLORS = ((214, 69, 65), (235, 151, 40), (38, 145, 120), (52, 88, 168), (142, 68, 160), (110, 110, 110))


class RollBatch(SampleBatch):
    """A batch of decoded piano rolls, which draws itself as a picture and saves itself as a MIDI file.

    A gap of one step between two notes of the same pitch is not played; see `litgan.music.PianoRolls`.

    Args:
        rolls: uint8 [N, tracks, steps, pitches] of 0 and 1.
        steps_per_bar: time steps per bar.
        lowest: MIDI number of row 0.
        quarters_per_bar: length of a bar in quarter notes.

    Raises:
        ValueError: `rolls` has another dtype or number of dimensions.
    """

    caption = (
        "Below each sample (time to the right, pitch upwards) is the feedback that it gets: the generator is "
        "pushed to remove what is red and to add what is blue. Each sample has its own color scale."
    )

    def __init__(self, rolls: Tensor, *, steps_per_bar: int, lowest: int, quarters_per_bar: int = 4) -> None:
        if rolls.dtype != torch.uint8 or rolls.ndim != 4:
            raise ValueError(
                f"Piano rolls are uint8 of shape [N, tracks, steps, pitches], not {rolls.dtype} of "
                f"{tuple(rolls.shape)}: decode the samples first."
            )
        self.rolls, self.steps_per_bar = rolls.cpu(), steps_per_bar
        self.lowest, self.quarters_per_bar = lowest, quarters_per_bar

    def __len__(self) -> int:
        return len(self.rolls)

    def render(self, columns: int | None = None) -> Tensor:
        """All samples in one picture: time to the right, pitch upwards, a color per track, a darker shade at
        the beginning of each note."""
        return tile(self._tiles(), columns)

    def render_with_grad(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """Rows of samples, each above its feedback summed over tracks: the generator is pushed to remove what
        is red and to add what is blue."""
        heat = signed_heat(feedback).permute(0, 3, 2, 1).flip(1)
        return tile_pairs(self._tiles(), _upscale(heat), columns)

    def save(self, stem: Path, picture: Tensor | None = None) -> list[Path]:
        """Writes the picture `<stem>.png`, and `<stem>.mid` with all samples separated by a bar of silence.

        `<stem>.wav` has the first of them as sound.

        Raises ImportError: mido is missing.
        """
        file = self.to_midi()  # first, so that no file is written if mido is missing
        written = super().save(stem, picture)
        path = stem.with_name(stem.name + ".mid")
        with atomic_write(path) as partial:
            file.save(partial)
        sound = path.with_suffix(".wav")
        with atomic_write(sound) as partial, wave.open(str(partial), "wb") as audio:
            audio.setparams((1, 2, SAMPLE_RATE, 0, "NONE", "not compressed"))
            audio.writeframes(self.to_wave().numpy().astype("<i2").tobytes())
        return [*written, path, sound]

    def wandb_media(self) -> dict[str, Any]:
        """The sound of the first samples; none if soundfile, which W&B needs, is not installed."""
        if find_spec("soundfile") is None:
            return {}
        import wandb

        return {"audio": wandb.Audio(self.to_wave().numpy(), sample_rate=SAMPLE_RATE)}

    def to_midi(self) -> mido.MidiFile:
        """Returns the MIDI file that `save` writes. Raises ImportError: mido is missing."""
        return to_midi_file(
            self.notes(), tracks=self.rolls.shape[1], lowest=self.lowest,
            steps_per_quarter=self.steps_per_bar / self.quarters_per_bar,
            quarters_per_bar=self.quarters_per_bar, tempo=TEMPO,
        )  # fmt: skip

    def to_wave(self) -> Tensor:
        """The first samples as sound, int16 [T] at `synthesis.SAMPLE_RATE`, a bar of silence after each."""
        period, played = self.rolls.shape[2] + self.steps_per_bar, min(len(self), MAX_PLAYED)
        seconds = 60 / TEMPO * self.quarters_per_bar / self.steps_per_bar
        notes = [note for note in self.notes() if note[1] < played * period]
        return synthesize(notes, steps=played * period, lowest=self.lowest, seconds_per_step=seconds)

    def notes(self) -> list[Note]:
        """Returns the notes of all samples in sequence, separated by a bar of silence."""
        period = self.rolls.shape[2] + self.steps_per_bar
        return [
            (track, start + number * period, end + number * period, row)
            for number, roll in enumerate(self.rolls)
            for track, start, end, row in notes_from_roll(roll.bool())
        ]

    def _tiles(self) -> Tensor:
        """Returns a picture of each sample, uint8 [N, H, W, 3]."""
        count, tracks, steps, pitches = self.rolls.shape
        width, _ = CELL_SIZE
        canvas = torch.tensor(BACKGROUND).expand(count, pitches, steps, 3).clone()
        black = torch.isin((torch.arange(pitches) + self.lowest) % 12, torch.tensor([1, 3, 6, 8, 10]))
        canvas[:, black.flip(0)] = torch.tensor(BLACK_KEY)
        canvas = _upscale(canvas)
        lines = torch.arange(steps)
        beats = lines % max(1, self.steps_per_bar // self.quarters_per_bar) == 0
        canvas[:, :, lines[beats] * width] = torch.tensor(BEAT_LINE)
        canvas[:, :, lines[lines % self.steps_per_bar == 0] * width] = torch.tensor(BAR_LINE)
        for track in reversed(range(tracks)):  # so that the first one is drawn last, on top
            roll = self.rolls[:, track].bool()
            before = torch.zeros_like(roll)
            before[:, 1:] = roll[:, :-1]
            color = torch.tensor(TRACK_COLORS[track % len(TRACK_COLORS)])
            sounding, onsets = (
                _upscale(mask.transpose(1, 2).flip(1)[..., None])[..., 0] for mask in (roll, roll & ~before)
            )
            onsets &= torch.arange(steps * width) % width == 0
            canvas[sounding] = color
            canvas[onsets] = color * 6 // 10
        return canvas.to(torch.uint8)


def _upscale(cells: Tensor) -> Tensor:
    """Enlarges each cell of [N, pitches, steps, ...] to a rectangle of `CELL_SIZE` pixels."""
    width, height = CELL_SIZE
    return cells.repeat_interleave(height, 1).repeat_interleave(width, 2)
