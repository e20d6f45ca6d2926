"""Sound files, read block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from litgan.data.files import UnusableFileError
from litgan.extras import require
from litgan.rebuild import first_line

SUFFIXES = (
    ".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd",
    ".caf", ".w64", ".rf64", ".voc",
)  # fmt: skip
ONSET_LEVEL = 0.02  # a sound begins where it first reaches this fraction of its peak (-34 dB)
SILENCE = 1e-4  # a sound with a lower peak, as a fraction of full scale, is silent (-80 dB); so is a window
# whose peak is a lower fraction of its file's
BLOCK = 1 << 20  # frames that are read at once
MAX_RATE = 1_000_000  # Hz; the header of a file with more is damaged


class SoundFile:
    """A sound file, read block by block, of which the mean over time is subtracted.

    One channel is the mean of the file's; of more the file has as many, or one, which is repeated.

    Raises:
        UnusableFileError: the file cannot be decoded, is empty, holds samples that are not finite, has
            channels that cancel each other or another number of them, or an impossible sample rate.
    """

    def __init__(self, path: Path, channels: int = 1) -> None:
        self.path, self.channels, self.rate = path, channels, 0
        total, frames = torch.zeros(channels).double(), 0
        low, high = torch.tensor(math.inf), torch.tensor(-math.inf)
        for block in self._blocks():
            mixed = self._mix(block)
            total, frames = total + mixed.double().sum(0), frames + len(block)
            both = torch.cat([mixed, block], 1)
            # One pair for the whole file: many small tensors would split the memory that large ones reuse.
            low, high = low.minimum(both.amin(0)), high.maximum(both.amax(0))
        if not 1 <= self.rate <= MAX_RATE:
            raise UnusableFileError(path, f"has {self.rate:,} samples a second, which no sound has")
        if not frames:
            raise UnusableFileError(path, "holds no samples, only a header")
        if not total.isfinite().all():
            raise UnusableFileError(path, "holds samples that are not finite")
        self.mean, self.frames = (total / frames).float(), frames
        self.peak = torch.maximum(high[:channels] - self.mean, self.mean - low[:channels]).max().item()
        if self.peak < SILENCE and ((high - low)[channels:] / 2).max() >= SILENCE:
            raise UnusableFileError(
                path,
                "has channels in opposite phase, whose mean is silent",
                "invert one of them or remove it",
            )

    def read(self) -> Tensor:
        """The whole sound, float32 [channels, T]."""
        return torch.cat([self._mix(block) - self.mean for block in self._blocks()]).T

    def read_from_onset(self, length: int) -> Tensor:
        """The first samples, float32 [channels, at most `length`], from the onset on.

        That is where a channel first reaches `ONSET_LEVEL` of the peak.
        """
        found, count = torch.empty(min(length, self.frames), self.channels), 0
        for block in self._blocks():
            wave = self._mix(block) - self.mean
            if not count:
                loud = (wave.abs() >= ONSET_LEVEL * self.peak).any(1)
                wave = wave[int(loud.int().argmax()) :] if loud.any() else wave[:0]
            wave = wave[: len(found) - count]
            found[count : count + len(wave)] = wave
            count += len(wave)
            if count == len(found):
                break
        return found[:count].T

    def _mix(self, block: Tensor) -> Tensor:
        """Frames [n, channels] of frames [n, channels of the file]."""
        if self.channels == 1:
            return block.mean(1, keepdim=True)
        if block.shape[1] not in (1, self.channels):
            raise UnusableFileError(
                self.path,
                f"has {block.shape[1]} channels, not {self.channels} or 1",
                "give data.stereo false",
            )
        return block.expand(-1, self.channels)

    def _blocks(self) -> Iterator[Tensor]:
        """Frames, float32 [at most BLOCK, channels]."""
        soundfile = require("soundfile", "sound")
        try:
            with soundfile.SoundFile(self.path) as file:
                self.rate = file.samplerate
                while len(block := file.read(BLOCK // file.channels, dtype="float32", always_2d=True)):
                    yield torch.from_numpy(block)
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise UnusableFileError(self.path, f"cannot be decoded ({first_line(error)})") from error
