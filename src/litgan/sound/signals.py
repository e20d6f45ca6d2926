"""Sound as a signal: resampling, spectrograms and mel bands, each from its formula."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

ZEROS = 24  # zero crossings of the interpolating sinc on either side
ROLLOFF = 0.95  # of the lower Nyquist frequency: what lies above leaks by no more than its transition band
BETA = 9.0  # of the Kaiser window: 90 dB down in the stopband


@lru_cache(maxsize=8)
def _interpolator(up: int, down: int) -> tuple[Tensor, int]:
    """Kernel [up, 1, taps] of a polyphase filter, one row for each place between two samples; its reach."""
    cutoff = ROLLOFF * min(1.0, up / down)  # of the incoming Nyquist frequency
    reach = math.ceil(ZEROS / cutoff)
    places = torch.arange(up, dtype=torch.float64)[:, None] * down / up
    distance = places - torch.arange(-reach, reach + down, dtype=torch.float64)
    inside = (1 - (distance / reach).square()).clamp_min(0)
    window = torch.special.i0(BETA * inside.sqrt()) / torch.special.i0(torch.tensor(BETA)) * (inside > 0)
    kernel = cutoff * torch.sinc(cutoff * distance) * window
    return kernel[:, None].float(), reach


def resample(wave: Tensor, source: int, target: int) -> Tensor:
    """A wave [T] at `source` Hz as [ceil(T target / source)] at `target` Hz, silence assumed around it.

    Ideal interpolation (Shannon 1949), the sinc cut off by a Kaiser window; when the rate falls the sinc
    is as wide as the new Nyquist frequency asks for, so that what lies above it is filtered away.
    """
    if source == target:
        return wave
    up, down = target // math.gcd(source, target), source // math.gcd(source, target)
    kernel, reach = _interpolator(up, down)
    length = -(-len(wave) * up // down)
    padded = F.pad(wave.float(), (reach, reach + 2 * down))
    return F.conv1d(padded[None, None], kernel.to(wave.device), stride=down)[0].T.flatten()[:length]


def compress(waves: Tensor, mu: float) -> Tensor:
    """Waves in [-1, 1] by the mu-law of ITU-T G.711, sign(x) ln(1 + mu |x|) / ln(1 + mu): in [-1, 1], too.

    Loudness to the ear goes by ratios: with mu 255 an amplitude of 1/1000 becomes 1/25. Unchanged for mu 0.
    """
    return waves.sign() * (mu * waves.abs()).log1p() / math.log1p(mu) if mu else waves


def expand(compressed: Tensor, mu: float) -> Tensor:
    """Inverse of `compress`."""
    return compressed.sign() * (math.log1p(mu) * compressed.abs()).expm1() / mu if mu else compressed


def slope(waves: Tensor, mu: float) -> Tensor:
    """Derivative of `compress`: times the gradient by compressed waves it is that by the waves themselves."""
    return mu / math.log1p(mu) / (1 + mu * waves.abs()) if mu else torch.ones_like(waves)


def mel(hertz: Tensor) -> Tensor:
    """The mel scale of O'Shaughnessy 1987: 2595 log10(1 + f / 700)."""
    return 2595.0 * torch.log10(1.0 + hertz / 700.0)


def hertz(mel: Tensor) -> Tensor:
    """Inverse of `mel`."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def mel_bands(bands: int, bins: int, sample_rate: int, lowest: float = 30.0) -> Tensor:
    """Triangular bands over the bins of a spectrum, [bands, bins], each with weights that add up to 1.

    Corners are evenly spaced on the mel scale from `lowest` to the Nyquist frequency, and a band spans two
    spaces. A band narrower than a bin takes what linear interpolation finds at its centre.
    """
    low, high = mel(torch.tensor([lowest, sample_rate / 2], dtype=torch.float64))
    corners = (
        hertz(torch.linspace(low, high, bands + 2, dtype=torch.float64)) / (sample_rate / 2) * (bins - 1)
    )
    width = corners.diff().clamp_min(1.0)[:, None]
    offset = torch.arange(bins) - corners[1:-1, None]
    weights = torch.minimum(1 + offset / width[:-1], 1 - offset / width[1:]).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float()


def spectra(waves: Tensor, window: int, hop: int) -> Tensor:
    """Short-time Fourier transform of waves [N, T]: complex [N, window / 2 + 1, ceil(T / hop)].

    Hann windows, centred on every `hop`-th sample, silence around the wave. A sine of amplitude 1 in the
    middle of a bin has magnitude 1.
    """
    frames = -(-waves.shape[-1] // hop)
    padded = F.pad(waves, (window // 2, (frames - 1) * hop + window // 2 - waves.shape[-1]))
    hann = torch.hann_window(window, device=waves.device, dtype=waves.dtype)
    return torch.fft.rfft(padded.unfold(-1, window, hop) * (hann * 2 / hann.sum())).transpose(1, 2)
