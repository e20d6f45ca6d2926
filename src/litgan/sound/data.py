"""Data sets of sounds: audio files below a folder, cut into windows of one length."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.data.checks import check_num_classes
from litgan.data.files import (
    FileCount,
    UnusableFileError,
    check_folder,
    find_files,
    label_by_folder,
    read_each,
)
from litgan.extras import require
from litgan.noise import Noise
from litgan.options import check_counts
from litgan.sound.files import BLOCK, SILENCE, SUFFIXES, SoundFile
from litgan.sound.instruments import INSTRUMENTS, label_by_instrument
from litgan.sound.render import AudioBatch
from litgan.sound.signals import mu_law_decode, mu_law_encode, resample

DRUM_SUFFIXES = (".wav", ".flac")  # the 668 files of the recipes' published numbers
DRUMKITS = Path("/usr/share/hydrogen/data/drumkits")  # of Debian's package hydrogen-drumkits
GAIN_STEPS = 4_096  # size of the table from which random gains are taken


class AudioDataModule(GANDataModule):
    """Base class: windows stored as int16 [N, channels, length], with peaks up to full scale.

    Args:
        sample_rate: in Hz.
        length: of a window, in samples.
        gain: lowest and highest random gain of a training sample, in dB. At most 0, because peaks are at
            full scale.
        shift: largest random delay of a training sample, in samples; what is moved beyond the window is cut.
        mu_law: mu of the mu-law (`signals.mu_law_encode`; 255 in telephony) that encodes the amplitudes the
            networks work on, so that quiet sounds count as they do to the ear; 0 for linear amplitudes. An
            exported generator gives encoded amplitudes: `litgan.sound.signals.mu_law_decode` undoes it.
        stereo: two channels; else one, the mean of those in a file.
        common: the options of `GANDataModule`.

    Raises:
        ValueError: `sample_rate`, `length`, `shift`, `gain` or `mu_law` is out of range.
    """

    splits: tuple[str, ...] = ("train", "test")
    stored_options: tuple[str, ...] = ("sample_rate", "length", "channels")

    def __init__(
        self,
        sample_rate: int,
        length: int,
        gain: tuple[float, float] = (0.0, 0.0),
        shift: int = 0,
        mu_law: float = 0.0,
        stereo: bool = False,
        **common: Any,
    ) -> None:
        self.channels = 2 if stereo else 1
        super().__init__((self.channels, length), **common)
        if sample_rate < 1 or length < 1 or not 0 <= shift < length:
            raise ValueError(
                f"length {length}, sample_rate {sample_rate} or shift {shift} is out of range: give a length "
                "and a sample_rate of at least 1 and a shift from 0 to below the length."
            )
        if not gain[0] <= gain[1] <= 0:
            raise ValueError(
                f"The gain from {gain[0]} to {gain[1]} dB is out of order or above 0, which would clip "
                "peaks: give two numbers such as [-6, 0]."
            )
        if not 0 <= mu_law < math.inf:
            raise ValueError(f"mu_law {mu_law} is out of range: give 255, or 0 for none.")
        self.sample_rate, self.length, self.gain, self.shift = sample_rate, length, tuple(gain), shift
        self.mu_law = mu_law

    def fingerprint_of(self, split: str) -> str:
        plain = super().fingerprint_of(split)
        return f"{plain}-mu{self.mu_law:g}" if self.mu_law else plain

    def encode(self, stored: Tensor) -> Tensor:
        return mu_law_encode(stored.float() * (1 / 32767), self.mu_law)

    def decode(self, samples: Tensor) -> AudioBatch:
        waves = mu_law_decode(samples.detach().float().clamp(-1, 1), self.mu_law).mul(32767).round()
        return AudioBatch(waves.to(torch.int16).squeeze(1), self.sample_rate, self.mu_law)

    def read_sample(self, path: str | Path) -> Tensor:
        """The whole sound in a file, of any length, encoded, [channels, T]; its peak is at full scale.

        Raises:
            ImportError: soundfile is not installed, or torchaudio where the file is resampled.
            ValueError: the file is no sound, or silent.
        """
        sound = SoundFile(Path(path), self.channels)
        if sound.peak < SILENCE:
            raise UnusableFileError(sound.path, "is silent", "give another sound")
        wave = resample(sound.read(), sound.rate, self.sample_rate)
        return mu_law_encode(wave / wave.abs().max(), self.mu_law)

    def augment(self, stored: Tensor, noise: Noise) -> Tensor:
        """Delays each sound by up to `shift` samples and applies a random `gain`."""
        if self.shift:
            delays = (noise.stream("shift").uniform(1, 1) * (self.shift + 1)).long()
            source = torch.arange(self.length, device=stored.device) - delays
            stored = stored.gather(2, source.clamp_min(0).expand_as(stored)).where(source >= 0, 0)
        if self.gain != (0.0, 0.0):
            # The last bit of 10 ** x depends on the element's position in its tensor. Taken from a fixed
            # table, a sample's gain does not depend on its position in the batch.
            low, high = self.gain
            gains = 10 ** (torch.linspace(low, high, GAIN_STEPS, device=stored.device) / 20)
            chosen = gains[(noise.stream("gain").uniform(1, 1) * GAIN_STEPS).long()]
            stored = (stored * chosen).round().to(torch.int16)
        return stored


class Sound(AudioDataModule):
    """Sound files anywhere below a folder; every tenth, in sorted order, is held out as the test split.

    Types are those of libsndfile, such as WAV, FLAC, OGG, MP3 and AIFF. Channels are averaged unless
    `stereo` keeps them, the mean of a file is subtracted, and files of another sample rate are resampled.
    The first window begins where the sound first reaches 2 % of its peak. Shorter sounds are padded with
    silence, longer ones are cut; a last window counts if at least half of it is filled. One gain takes the
    windows of a file to full scale.
    The package soundfile reads the files, torchaudio resamples them: `pip install litgan[sound]`.

    Args:
        root: the folder, or what `litgan pack` has made of it; null takes the WAV and FLAC files of Debian's
            package hydrogen-drumkits.
        sample_rate: in Hz; files of another rate are resampled.
        length: of a window, in samples; WaveGAN needs a multiple of 4^len(widths).
        windows: largest number of consecutive windows from one file; silent windows are dropped.
        resample: if false, a file of another sample rate is an error.
        skip_silence: drop silent files; if false, a silent file is an error.
        skip_unusable: leave out all files that cannot be used.
        holdout_every: the last of so many files is in the test split.
        instruments: classes are the drums of `litgan.sound.instruments`, by the names that kits of Hydrogen
            (drumkit.xml) give to their instruments, else by the files' names; `num_classes` is 9 then, or 0.
        gain: see `AudioDataModule`.
        shift: see `AudioDataModule`.
        mu_law: see `AudioDataModule`.
        stereo: see `AudioDataModule`.
        common: the options of `GANDataModule`. With `num_classes` 0, subfolders are ignored; otherwise the
            label is the index of the first-level subfolder in the sorted list `class_names`, or that of the
            instrument.
    """

    def __init__(
        self,
        root: str | None = None,
        sample_rate: int = 16_000,
        length: int = 16_384,
        windows: int = 1,
        resample: bool = True,
        skip_silence: bool = False,
        gain: tuple[float, float] = (0.0, 0.0),
        shift: int = 0,
        mu_law: float = 0.0,
        stereo: bool = False,
        skip_unusable: bool = False,
        holdout_every: int = 10,
        instruments: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(sample_rate, length, gain, shift, mu_law, stereo, **common)
        check_counts(windows=windows)
        check_counts(least=2, holdout_every=holdout_every)
        if instruments:
            check_num_classes(type(self).__name__, self.num_classes, len(INSTRUMENTS))
            self.class_names = INSTRUMENTS
        self.holdout_every, self.instruments = holdout_every, instruments
        self.root, self.windows, self.resample = root, windows, resample
        self.skip_silence, self.skip_unusable = skip_silence, skip_unusable

    def read(self, split: str) -> tuple[Tensor, Tensor | None]:
        """
        Raises:
            FileNotFoundError: the folder or the drum kits are absent, or hold no sound for this split.
            ImportError: soundfile is not installed, or torchaudio where a file is resampled.
            ValueError: files are unreadable, silent, or of another sample rate where `resample` is false;
                or the number of subfolders is not `num_classes`.
        """
        require("soundfile", "sound")
        root = self._folder()
        (names, others), labels = find_files(root, SUFFIXES if self.root else DRUM_SUFFIXES, "sound"), None
        if self.instruments:
            labels = label_by_instrument(root, names)
        elif self.num_classes:
            labels, self.class_names = label_by_folder(root, names, self.num_classes, "sound")
        held_out = torch.arange(len(names)) % self.holdout_every == self.holdout_every - 1
        chosen = (held_out if split == "test" else ~held_out).nonzero().flatten()
        paths = [root / names[index] for index in chosen.tolist()]
        found = list(read_each(self._read_windows, paths, "reading sounds", skip=self.skip_unusable))
        none = torch.empty(0, *self.sample_shape, dtype=torch.int16)
        windows = [none if each is None else each for each in found]
        if not any(map(len, windows)):
            raise FileNotFoundError(f"{root} holds no sound for the split {split!r}: put more files into it.")
        others["unusable"] = sum(each is None for each in found)
        others["silent"] = sum(each is not None and not len(each) for each in found)
        read = len(paths) - others["unusable"] - others["silent"]
        self.files[split] = FileCount(read, len(names) - len(paths), +others)
        if labels is not None:
            labels = labels[chosen].repeat_interleave(torch.tensor(list(map(len, windows))))
        return torch.cat(windows), labels

    def _folder(self) -> Path:
        if self.root is not None:
            return check_folder(Path(self.root).expanduser(), "sound")
        if not DRUMKITS.is_dir():
            raise FileNotFoundError(
                "The drum kits are not installed: `apt-get install hydrogen-drumkits` brings them, or "
                "give data.root a folder of sounds."
            )
        return DRUMKITS

    def _read_windows(self, path: Path) -> Tensor:
        """The windows of a file, int16 [n, channels, length]; none if it is silent and may be."""
        sound = SoundFile(path, self.channels)
        if sound.rate != self.sample_rate and not self.resample:
            raise UnusableFileError(
                path,
                f"has {sound.rate} samples a second and data.sample_rate is {self.sample_rate}",
                f"give --data.resample true or --data.sample_rate {sound.rate}",
            )
        if sound.peak < SILENCE:
            if self.skip_silence:
                return torch.empty(0, *self.sample_shape, dtype=torch.int16)
            raise UnusableFileError(path, "is silent", "remove it or give --data.skip_silence true")
        longest = math.ceil(self.windows * self.length / self.sample_rate * sound.rate)
        wave = sound.read_from_onset(longest + sound.rate // 100)  # 10 ms for the filter's tail
        wave = resample(wave, sound.rate, self.sample_rate)
        samples = wave.shape[1]
        count = min(self.windows, max(1, int(samples / self.length + 0.5)))
        if samples < count * self.length:
            wave = F.pad(wave, (0, count * self.length - samples))
        windows = wave[:, : count * self.length].unflatten(1, (count, self.length)).transpose(0, 1)
        peaks, stored = torch.empty(count), torch.empty(count, *self.sample_shape, dtype=torch.int16)
        parts = torch.arange(count).split(max(1, BLOCK // self.length))  # for a file may hold hours
        for part in parts:
            peaks[part] = windows[part].abs().amax((1, 2))
        for part in parts:
            stored[part] = (windows[part] / peaks.max() * 32767).round().to(torch.int16)
        audible = peaks >= SILENCE * peaks.max()
        return stored if audible.all() else stored[audible]


def to_int16(waves: Tensor) -> Tensor:
    """Scales the peak of each wave [N, T] to full scale and rounds to int16; drops silent waves."""
    peaks = waves.abs().amax(1, keepdim=True)
    audible = peaks[:, 0] >= SILENCE
    return (waves[audible] / peaks[audible] * 32767).round().to(torch.int16)
