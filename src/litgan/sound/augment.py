"""Differentiable augmentation of sounds, for small data sets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from litgan.augment import AdaptiveAugmentation
from litgan.losses import to_float32
from litgan.networks.layers import without_autocast
from litgan.noise import torch_generator
from litgan.schedules import Schedule

GAIN = 12.0  # dB, range below full scale
REACH = 1 / 16  # of a sound's length, largest shift to either side
TILT = 6.0  # dB, standard deviation of a filter's gain at each of its corners
CORNERS = 5  # of a filter, evenly spaced on the logarithmic frequency axis of OCTAVES below the highest
OCTAVES = 8
PITCH = 1 / 6  # octaves, a whole tone: largest change to either side
NOISE = (-70.0, -40.0)  # dB, lowest and highest root mean square of the noise floor
TABLE = 1 << 17  # random numbers from which noise floors are cut


class SoundAugment(AdaptiveAugmentation):
    """Each transform of `policy`, in this order, changes a sound [B, C, T] with probability p.

    gain: by U(-12, 0) dB (Défossez et al. 2019, Demucs).
    polarity: the sign, changed in half of the cases (the same).
    pitch: read faster or slower, by U(-1, 1) whole tones; the length stays (speed perturbation, Ko et al.
        2015).
    filter: gains N(0, 6 dB) at five frequencies, linear in between on a logarithmic axis; Schlüter & Grill
        2015 have one such peak.
    shift: by whole samples, up to a sixteenth of the length; silence moves in (the translation of Zhao et al.
        2020).
    noise: white, at U(-70, -40) dB (Schlüter & Grill 2015).

    As for images, what p < 1 leaves unchanged keeps the generator from learning augmented sounds (Karras et
    al. 2020, section 2.2). Sounds without any transform are returned bit for bit. Amplitudes are linear:
    leave `mu_law` of the data at 0.

    Args:
        p: probability of each transform: constant, a schedule, or with a `target` where it begins.
        policy: which transforms.
        target, interval, images: see `AdaptiveAugmentation`.

    Raises:
        ValueError: there is no such transform; see `AdaptiveAugmentation`.
    """

    noise_table: Tensor

    def __init__(
        self,
        p: float | Schedule = 0.5,
        policy: Sequence[str] = ("gain", "polarity", "pitch", "filter", "shift", "noise"),
        target: float | None = None,
        interval: int = 4,
        images: int = 500_000,
    ) -> None:
        super().__init__(p, target, interval, images)
        counts = {"gain": 2, "polarity": 2, "pitch": 2, "filter": 1 + CORNERS, "shift": 2, "noise": 3}
        if wrong := [name for name in policy if name not in counts]:
            raise ValueError(f"SoundAugment has no policy {wrong[0]!r}: give any of {', '.join(counts)}.")
        self.policy = tuple(policy)
        self.num_uniforms = sum(counts[name] for name in policy)
        table = torch.randn(TABLE, generator=torch_generator("noise floor"), device="cpu")
        self.register_buffer("noise_table", table, persistent=False)

    def forward(self, samples: Tensor, uniforms: Tensor) -> Tensor:
        if samples.ndim != 3:
            raise ValueError(
                f"SoundAugment changes sounds [B, C, T], not {list(samples.shape)}: leave model.augment out "
                "for such data."
            )
        numbers = iter(uniforms.unbind(1))
        with without_autocast(samples.device):
            waves = to_float32(samples)
            for name in self.policy:
                on = (next(numbers) < self.p).view(-1, 1, 1)
                waves = torch.where(on, getattr(self, name)(waves, numbers), waves)
        return waves.to(samples.dtype)

    def gain(self, waves: Tensor, numbers: Iterator[Tensor]) -> Tensor:
        return waves * amplitude(-GAIN * column(numbers))

    def polarity(self, waves: Tensor, numbers: Iterator[Tensor]) -> Tensor:
        return waves * (1 - 2 * (2 * column(numbers)).floor())

    def pitch(self, waves: Tensor, numbers: Iterator[Tensor]) -> Tensor:
        speed = torch.exp2(PITCH * (2 * column(numbers) - 1))
        places = torch.arange(waves.shape[2], device=waves.device) * speed
        floor = places.floor()
        fraction = places - floor
        first, second = (take(waves, (floor + step).long()) for step in (0, 1))
        return first + fraction * (second - first)

    def filter(self, waves: Tensor, numbers: Iterator[Tensor]) -> Tensor:
        length = waves.shape[2]
        levels = torch.cat([TILT * normal(column(numbers)) for _ in range(CORNERS)], 2)  # [B, 1, CORNERS]
        bins = torch.arange(1, length // 2 + 2, device=waves.device) / (length // 2 + 1)
        places = ((1 + bins.log2() / OCTAVES) * (CORNERS - 1)).clamp(0, CORNERS - 1)
        hats = (1 - (places - torch.arange(CORNERS, device=waves.device)[:, None]).abs()).clamp_min(0)
        return torch.fft.irfft(torch.fft.rfft(waves) * amplitude(levels @ hats), length)

    def shift(self, waves: Tensor, numbers: Iterator[Tensor]) -> Tensor:
        reach = int(REACH * waves.shape[2])
        by = (column(numbers) * (2 * reach + 1)).long() - reach
        return take(waves, torch.arange(waves.shape[2], device=waves.device) - by)

    def noise(self, waves: Tensor, numbers: Iterator[Tensor]) -> Tensor:
        low, high = NOISE
        level = amplitude(low + (high - low) * column(numbers))
        start = (column(numbers) * TABLE).long()
        channels = torch.arange(waves.shape[1], device=waves.device)[:, None] * waves.shape[2]
        places = start + channels + torch.arange(waves.shape[2], device=waves.device)
        return waves + level * self.noise_table[places % TABLE]


def column(numbers: Iterator[Tensor]) -> Tensor:
    return next(numbers).view(-1, 1, 1)


def amplitude(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 20)


def normal(uniform: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) as standard normal ones, all of them finite."""
    return math.sqrt(2) * (2 * uniform.clamp(2**-20, 1 - 2**-20) - 1).erfinv()


def take(waves: Tensor, places: Tensor) -> Tensor:
    """The samples of waves [B, C, T] at places [B, 1, T]; silence outside."""
    inside = (places >= 0) & (places < waves.shape[2])
    found = waves.gather(2, places.clamp(0, waves.shape[2] - 1).expand_as(waves))
    return torch.where(inside, found, 0.0)
