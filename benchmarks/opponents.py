"""What a GAN of each medium has to beat: models without a network, fitted to the same training split.

Each is a function of (data, count, seed) that gives samples [count, *sample_shape] as the discriminator
sees them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.data import GANDataModule
from litgan.noise import torch_generator
from litgan.sound.data import Waveforms
from litgan.sound.signals import compress, expand
from litgan.text.data import CharacterData


def filtered_noise(data: Waveforms, count: int, seed: int) -> Tensor:
    """Sound: white noise with the mean power spectrum of the training sounds and the envelope of one of them.

    The envelope, the root mean square over 128 samples at a time, is that of a sound chosen at random.
    """
    stored, _ = data.load("train")
    waves = expand(data.encode(stored), data.companding)[:, 0]
    length = waves.shape[1]
    generator = torch_generator("filtered noise", seed)
    colour = torch.fft.rfft(waves).abs().square().mean(0).sqrt()
    noise = torch.fft.irfft(torch.fft.rfft(torch.randn(count, length, generator=generator)) * colour, length)
    chosen = waves[torch.randint(len(waves), (count,), generator=generator)]
    envelope = F.avg_pool1d(chosen.square()[:, None], 128, ceil_mode=True).sqrt()
    shaped = noise * F.interpolate(envelope, length, mode="linear")[:, 0]
    return compress((shaped / shaped.abs().amax(1, keepdim=True))[:, None], data.companding)


def independent_steps(data: GANDataModule, count: int, seed: int) -> Tensor:
    """Music: each step of each track takes what that track plays at some step of some training roll.

    These are draws from each track's histogram of pitches, rests and chords, one independent of the other.
    """
    rolls = data.load("train")[0]
    tracks, steps, pitches = rolls.shape[1:]
    columns = rolls.transpose(0, 1).reshape(tracks, -1, pitches)
    generator = torch_generator("independent steps", seed)
    places = torch.randint(columns.shape[1], (count, tracks, steps), generator=generator)
    return data.encode(columns[torch.arange(tracks)[:, None], places])


def markov_chain(data: CharacterData, count: int, seed: int, order: int = 3) -> Tensor:
    """Text: each character drawn with the probabilities that it has in training windows after the last three.

    The first three are those of a window chosen at random.
    """
    windows, size = data.load("train")[0].long(), data.alphabet_size
    context = size ** torch.arange(order)
    states = windows.unfold(1, order, 1) @ context
    counts = (states[:, :-1] * size + windows[:, order:]).flatten().bincount(minlength=size ** (order + 1))
    chances = counts.view(-1, size).double().add_(1e-9).cumsum_(1)  # after what never occurs: anything
    generator = torch_generator("markov chain", seed)
    symbols = windows[torch.randint(len(windows), (count,), generator=generator)]
    for place in range(order, data.length):
        chance = chances[symbols[:, place - order : place] @ context]
        drawn = torch.rand(count, 1, generator=generator, dtype=torch.float64) * chance[:, -1:]
        symbols[:, place] = torch.searchsorted(chance, drawn).squeeze(1).clamp_(max=size - 1)
    return data.encode(symbols)
