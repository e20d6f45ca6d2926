"""What a GAN of sounds has to beat: models without a network, made of the same training split.

`opponents` gives their samples, [count, *sample_shape] as the discriminator sees them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.noise import torch_generator
from litgan.sound.data import AudioDataModule
from litgan.sound.signals import mu_law_decode, mu_law_encode


def filtered_noise(data: AudioDataModule, count: int, seed: int) -> Tensor:
    """White noise with the mean power spectrum of the training sounds and the envelope of one of them.

    The envelope, the root mean square over 128 samples at a time, is that of a sound chosen at random.
    """
    stored, _ = data.load("train")
    waves = mu_law_decode(data.encode(stored), data.mu_law)[:, 0]
    length = waves.shape[1]
    generator = torch_generator("filtered noise", seed)
    color = torch.fft.rfft(waves).abs().square().mean(0).sqrt()
    noise = torch.fft.irfft(torch.fft.rfft(torch.randn(count, length, generator=generator)) * color, length)
    chosen = waves[torch.randint(len(waves), (count,), generator=generator)]
    envelope = F.avg_pool1d(chosen.square()[:, None], 128, ceil_mode=True).sqrt()
    shaped = noise * F.interpolate(envelope, length, mode="linear")[:, 0]
    return mu_law_encode((shaped / shaped.abs().amax(1, keepdim=True))[:, None], data.mu_law)


def changed_sounds(data: AudioDataModule, count: int, seed: int) -> Tensor:
    """Training sounds chosen at random, each at another pitch, later or earlier, and filtered.

    Pitch by up to a whole tone, by reading the sound faster or slower; up to 5 ms; a filter whose gain in dB
    is a line over the frequencies, from -3 to 3 at either end.
    """
    stored, _ = data.load("train")
    generator = torch_generator("changed sounds", seed)
    chosen = torch.randint(len(stored), (count,), generator=generator)
    waves = mu_law_decode(data.encode(torch.as_tensor(stored)[chosen]), data.mu_law)  # [count, 1, length]
    length = waves.shape[2]
    pitch, shift, low, high = (2 * torch.rand(4, count, 1, generator=generator) - 1).unbind()
    places = torch.arange(length) * 2 ** (pitch / 6) + shift * 0.005 * data.sample_rate
    grid = torch.stack([2 * places / (length - 1) - 1, torch.zeros_like(places)], 2)[:, None]
    waves = F.grid_sample(waves[:, :, None], grid, align_corners=True)[:, :, 0]
    gain = low + (high - low) * torch.linspace(0, 1, length // 2 + 1)
    waves = torch.fft.irfft(torch.fft.rfft(waves) * 10 ** (3 * gain[:, None] / 20), length)
    return mu_law_encode(waves / waves.abs().amax(2, keepdim=True).clamp_min(1e-9), data.mu_law)


def opponents(
    data: AudioDataModule, count: int, seconds: float, seed: int = 0
) -> Iterator[tuple[str, Tensor]]:
    """Names and samples; neither has a network, so `seconds` do not count."""
    yield "filtered noise", filtered_noise(data, count, seed)
    yield "training sounds, changed", changed_sounds(data, count, seed)
