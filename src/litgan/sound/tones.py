"""A toy data set: tones of known frequencies, so that right and wrong samples can be counted."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from litgan.data.checks import check_num_classes
from litgan.noise import torch_generator
from litgan.sound.data import AudioDataModule, to_int16


class Tones(AudioDataModule):
    """Decaying sines of known frequencies. The data do not depend on the run's seed.

    Each tone falls by 60 dB in a time that is uniformly distributed over `decay`; the label is the index of
    its frequency.

    Args:
        frequencies: in Hz, below half the sample rate.
        decay: shortest and longest decay time, in seconds.
        samples: size of each split; all frequencies are equally frequent.
        sample_rate: in Hz.
        length: of a tone, in samples.
        gain: see `AudioDataModule`.
        shift: see `AudioDataModule`.
        mu_law: see `AudioDataModule`.
        common: `stereo`, of which both channels are alike, and the options of `GANDataModule`; `num_classes`
            is 0 or the number of frequencies.
    """

    def __init__(
        self,
        frequencies: tuple[float, ...] = (220.0, 330.0, 495.0, 742.5),
        decay: tuple[float, float] = (0.3, 0.6),
        samples: int = 1_000,
        sample_rate: int = 4_000,
        length: int = 1_024,
        gain: tuple[float, float] = (0.0, 0.0),
        shift: int = 0,
        mu_law: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(sample_rate, length, gain, shift, mu_law, **common)
        check_num_classes(type(self).__name__, self.num_classes, len(frequencies))
        if not all(0 < frequency < sample_rate / 2 for frequency in frequencies):
            raise ValueError(
                f"The frequencies {list(frequencies)} Hz do not fit the sample_rate {sample_rate}: give "
                "frequencies above 0 and below half of it."
            )
        self.frequencies, self.decay, self.samples = tuple(frequencies), decay, samples
        self.class_names = [f"{frequency:g} Hz" for frequency in frequencies]

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        labels = torch.arange(self.samples) % len(self.frequencies)
        time = torch.arange(self.length) / self.sample_rate
        low, high = self.decay
        fraction = torch.rand(self.samples, 1, generator=torch_generator("tones", split))
        amplitude = 10 ** (-3 * time / (low + (high - low) * fraction))
        frequency = torch.tensor(self.frequencies)[labels, None]
        waves = to_int16(amplitude * torch.sin(2 * math.pi * frequency * time))
        return waves[:, None].repeat(1, self.channels, 1), labels


def tone_errors(waves: Tensor, frequencies: tuple[float, ...], sample_rate: int) -> tuple[Tensor, Tensor]:
    """Compares the frequency of each wave [N, T] with the nearest of `frequencies`.

    The frequency of a wave is the peak of its spectrum, computed with eightfold zero padding.

    Returns:
        Relative errors of the frequencies, and indices of the nearest of `frequencies`, both [N].
    """
    hann = torch.hann_window(waves.shape[1])
    size = 8 * waves.shape[1]
    measured = torch.fft.rfft(waves.float().cpu() * hann, size).abs().argmax(1) * sample_rate / size
    return (measured[:, None] / torch.tensor(frequencies) - 1).abs().min(1)
