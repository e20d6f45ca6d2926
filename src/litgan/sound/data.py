"""Data sets of sounds: audio files below a folder, cut into windows of one length."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.data.files import label_by_folder, list_files, threaded
from litgan.extras import require
from litgan.noise import Noise
from litgan.sound.render import AudioBatch
from litgan.sound.signals import mu_law_decode, mu_law_encode, resample

SUFFIXES = (".wav", ".flac", ".ogg")
DRUMKITS = Path("/usr/share/hydrogen/data/drumkits")  # of Debian's package hydrogen-drumkits
ONSET_LEVEL = 0.02  # a sound begins where it first reaches this fraction of its peak (-34 dB)
SILENCE = 1e-4  # a sound with a lower peak, as a fraction of full scale, is silent (-80 dB)
GAIN_STEPS = 4_096  # size of the table from which random gains are taken
HOLDOUT_EVERY = 10  # files; the last of each ten belongs to the test split


class AudioDataModule(GANDataModule):
    """Base class: mono windows stored as int16 [N, 1, length], the peak of each at full scale.

    Args:
        sample_rate: in Hz.
        length: of a window, in samples.
        gain: lowest and highest random gain of a training sample, in dB. At most 0, because peaks are at
            full scale.
        shift: largest random delay of a training sample, in samples; what is moved beyond the window is cut.
        mu_law: mu of the mu-law (`signals.mu_law_encode`; 255 in telephony) that encodes the amplitudes the
            networks work on, so that quiet sounds count as they do to the ear; 0 for linear amplitudes. An
            exported generator gives encoded amplitudes: `litgan.sound.signals.mu_law_decode` undoes it.
        common: the options of `GANDataModule`.

    Raises:
        ValueError: `sample_rate`, `length`, `shift`, `gain` or `mu_law` is out of range.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def __init__(
        self,
        sample_rate: int,
        length: int,
        gain: tuple[float, float] = (0.0, 0.0),
        shift: int = 0,
        mu_law: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__((1, length), **common)
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

    @property
    def fingerprint(self) -> str:
        plain = super().fingerprint
        return f"{plain}-mu{self.mu_law:g}" if self.mu_law else plain

    def encode(self, stored: Tensor) -> Tensor:
        return mu_law_encode(stored.float() * (1 / 32767), self.mu_law)

    def decode(self, samples: Tensor) -> AudioBatch:
        waves = mu_law_decode(samples.detach().float().clamp(-1, 1), self.mu_law).mul(32767).round()
        return AudioBatch(waves.to(torch.int16).flatten(1), self.sample_rate, self.mu_law)

    def augment(self, stored: Tensor, noise: Noise) -> Tensor:
        """Delays each sound by up to `shift` samples and applies a random `gain`."""
        if self.shift:
            delays = (noise.stream("shift").uniform(1, 1) * (self.shift + 1)).long()
            source = torch.arange(self.length, device=stored.device) - delays
            stored = stored.gather(2, source.clamp_min(0)).where(source >= 0, 0)
        if self.gain != (0.0, 0.0):
            # The last bit of 10 ** x depends on the element's position in its tensor. Taken from a fixed
            # table, a sample's gain does not depend on its position in the batch.
            low, high = self.gain
            gains = 10 ** (torch.linspace(low, high, GAIN_STEPS, device=stored.device) / 20)
            chosen = gains[(noise.stream("gain").uniform(1, 1) * GAIN_STEPS).long()]
            stored = (stored * chosen).round().to(torch.int16)
        return stored


class Sound(AudioDataModule):
    """WAV, FLAC and OGG files anywhere below a folder; every tenth, in sorted order, is in the test split.

    Channels are averaged, and files of another sample rate are resampled. The first window begins where the
    sound first reaches 2 % of its peak. Shorter sounds are padded with silence, longer ones are cut.
    The package soundfile reads the files, torchaudio resamples them: `pip install litgan[sound]`.

    Args:
        root: the folder; null takes the drum kits of Debian's package hydrogen-drumkits.
        sample_rate: in Hz; files of another rate are resampled.
        length: of a window, in samples; WaveGAN needs a multiple of 4^len(widths).
        windows: largest number of consecutive windows from one file; silent windows are dropped.
        resample: if false, a file of another sample rate is an error.
        skip_silence: drop silent files; if false, a silent file is an error.
        gain: see `AudioDataModule`.
        shift: see `AudioDataModule`.
        mu_law: see `AudioDataModule`.
        common: the options of `GANDataModule`. With `num_classes` 0, subfolders are ignored; otherwise the
            label is the index of the first-level subfolder in the sorted list `class_names`.
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
        **common: Any,
    ) -> None:
        super().__init__(sample_rate, length, gain, shift, mu_law, **common)
        if windows < 1:
            raise ValueError(f"windows is {windows}: give at least 1.")
        self.root, self.windows, self.resample, self.skip_silence = root, windows, resample, skip_silence

    def read(self, split: str) -> tuple[Tensor, Tensor | None]:
        """
        Raises:
            FileNotFoundError: the folder or the drum kits are absent, or hold no sound for this split.
            ImportError: soundfile is not installed, or torchaudio where a file is resampled.
            ValueError: a file is unreadable, silent, or of another sample rate where `resample` is false;
                or the number of subfolders is not `num_classes`.
        """
        require("soundfile", "sound")
        root = self._folder()
        names, labels = list_files(root, SUFFIXES, "sound"), None
        if self.num_classes:
            labels, self.class_names = label_by_folder(root, names, self.num_classes, "sound")
        held_out = torch.arange(len(names)) % HOLDOUT_EVERY == HOLDOUT_EVERY - 1
        chosen = (held_out if split == "test" else ~held_out).nonzero().flatten()
        windows = list(threaded(self._read_windows, [root / names[index] for index in chosen.tolist()]))
        if not any(map(len, windows)):
            raise FileNotFoundError(f"{root} holds no sound for the split {split!r}: put more files into it.")
        if labels is not None:
            labels = labels[chosen].repeat_interleave(torch.tensor(list(map(len, windows))))
        return torch.cat(windows)[:, None], labels

    def _folder(self) -> Path:
        root = DRUMKITS if self.root is None else Path(self.root).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(
                "The drum kits are not installed: `apt-get install hydrogen-drumkits` brings them, or "
                "give data.root a folder of sounds."
                if self.root is None
                else f"There is no folder {root}: give data.root one that exists."
            )
        return root

    def _read_windows(self, path: Path) -> Tensor:
        """The windows of a file, int16 [at most `windows`, length]."""
        wave, rate = read_audio(path)
        if rate != self.sample_rate and not self.resample:
            raise ValueError(
                f"{path} has {rate} samples a second and data.sample_rate is {self.sample_rate}: "
                f"give --data.resample true or --data.sample_rate {rate}."
            )
        level = wave.abs()
        peak = level.max() if len(wave) else torch.tensor(0.0)
        if peak < SILENCE:
            if self.skip_silence:
                return torch.empty(0, self.length, dtype=torch.int16)
            raise ValueError(f"{path} is silent: remove it or give --data.skip_silence true.")
        start = int((level >= ONSET_LEVEL * peak).int().argmax())
        needed = self.windows * self.length
        end = start + math.ceil(needed / self.sample_rate * rate) + rate // 100  # 10 ms for the filter's tail
        wave = resample(wave[start:end], rate, self.sample_rate)
        count = min(self.windows, max(1, len(wave) // self.length))
        return to_int16(F.pad(wave, (0, needed))[: count * self.length].view(count, self.length))


def read_audio(path: Path) -> tuple[Tensor, int]:
    """Reads a file: the mean over its channels, float32 [T] within [-1, 1], and the sample rate.

    Raises:
        ValueError: the file cannot be decoded, or holds samples that are not finite.
    """
    soundfile = require("soundfile", "sound")
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"{path} cannot be decoded ({reason}): replace or remove it.") from error
    wave = torch.from_numpy(channels).mean(1)
    if not wave.isfinite().all():
        raise ValueError(f"{path} holds samples that are not finite: replace or remove it.")
    return wave, rate


def to_int16(waves: Tensor) -> Tensor:
    """Scales the peak of each wave [N, T] to full scale and rounds to int16; drops silent waves."""
    peaks = waves.abs().amax(1, keepdim=True)
    audible = peaks[:, 0] >= SILENCE
    return (waves[audible] / peaks[audible] * 32767).round().to(torch.int16)
