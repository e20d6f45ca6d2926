"""What a GAN of sounds has to beat: a model without a network, fitted to the same training split.

It is a function of (data, count, seed) that gives samples [count, *sample_shape] as the discriminator sees
them.
"""

from __future__ import annotations

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


OPPONENT = filtered_noise
