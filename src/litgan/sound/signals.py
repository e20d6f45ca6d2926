"""Resampling, mu-law, mel bands and spectra.

Why torchaudio does not do more of it: its mu-law quantizes, and ours has to be differentiable; its mel bands
(`melscale_fbanks`) are the same numbers as ours, once each adds up to 1, but leave a band narrower than a
bin with whatever bins it happens to touch, or with none. Spectrograms at 4 and 8 kHz have such bands.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from litgan.extras import require

LARGEST_FILTER = 1 << 20  # entries of a table of filters

# The transition band is centered on 95 % of the lower Nyquist frequency; the stopband lies 90 dB down.
RESAMPLING: dict[str, Any] = {
    "lowpass_filter_width": 24,
    "rolloff": 0.95,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 9.0,
}


def resample(waves: Tensor, source: int, target: int) -> Tensor:
    """Waves [..., T] at `source` Hz as [..., ceil(T target / source)] at `target` Hz; silence around them.

    Raises:
        ImportError: the rates differ and torchaudio is not installed.
    """
    if source == target:
        return waves
    torchaudio = require("torchaudio", "sound")
    phases, step = (rate // math.gcd(source, target) for rate in (target, source))
    if phases * step <= LARGEST_FILTER:
        return torchaudio.functional.resample(waves, source, target, **RESAMPLING)
    return _resample_directly(waves, source, target)


def _resample_directly(waves: Tensor, source: int, target: int) -> Tensor:
    """The same for rates without a common divisor, for which torchaudio's table of filters has gigabytes."""
    cutoff, width = RESAMPLING["rolloff"] * min(source, target), RESAMPLING["lowpass_filter_width"]
    reach = math.ceil(width * source / cutoff)  # input samples on each side
    taps, beta = torch.arange(-reach, reach + 2), torch.tensor(RESAMPLING["beta"], dtype=torch.float64)
    padded, parts = torch.nn.functional.pad(waves, (reach, reach + 1)), list[Tensor]()
    for place in torch.arange(-(-waves.shape[-1] * target // source)).split(
        max(1, LARGEST_FILTER // len(taps))
    ):
        first, phase = place * source // target, place * source % target
        time = (taps - phase[:, None].double() / target) * (cutoff / source)
        kaiser = torch.special.i0(beta * (1 - (time / width).clamp(-1, 1) ** 2).sqrt()) / torch.special.i0(
            beta
        )
        filters = (time.clamp(-width, width).sinc() * kaiser * (cutoff / source)).to(waves.dtype)
        parts.append((padded[..., first[:, None] + taps + reach] * filters).sum(-1))
    return torch.cat(parts, -1)


def mu_law_encode(waves: Tensor, mu: float) -> Tensor:
    """Mu-law of ITU-T G.711, sign(x) ln(1 + mu |x|) / ln(1 + mu), from [-1, 1] to [-1, 1]; identity for mu 0.

    It amplifies what is quiet, because loudness is perceived by ratios: mu 255 takes 1/1000 to 1/25.
    """
    return waves.sign() * (mu * waves.abs()).log1p() / math.log1p(mu) if mu else waves


def mu_law_decode(encoded: Tensor, mu: float) -> Tensor:
    """Inverse of `mu_law_encode`."""
    return encoded.sign() * (math.log1p(mu) * encoded.abs()).expm1() / mu if mu else encoded


def mu_law_gradient(waves: Tensor, mu: float) -> Tensor:
    """Derivative of `mu_law_encode`: the factor from the gradient by encoded waves to that by the waves."""
    return mu / math.log1p(mu) / (1 + mu * waves.abs()) if mu else torch.ones_like(waves)


def hz_to_mel(hertz: Tensor) -> Tensor:
    """The mel scale of O'Shaughnessy 1987 (HTK's): 2595 log10(1 + f / 700)."""
    return 2595.0 * torch.log10(1.0 + hertz / 700.0)


def mel_to_hz(mel: Tensor) -> Tensor:
    """Inverse of `hz_to_mel`."""
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def mel_filterbank(bands: int, bins: int, sample_rate: int, lowest: float = 30.0) -> Tensor:
    """Weights [bands, bins] of triangular mel bands over the bins of a spectrum; those of a band sum to 1.

    Corners are evenly spaced on the mel scale from `lowest` Hz to the Nyquist frequency; a band spans two
    intervals. A band narrower than a bin interpolates the spectrum linearly at its center.
    """
    low, high = hz_to_mel(torch.tensor([lowest, sample_rate / 2], dtype=torch.float64))
    corners = (
        mel_to_hz(torch.linspace(low, high, bands + 2, dtype=torch.float64)) / (sample_rate / 2) * (bins - 1)
    )
    width = corners.diff().clamp_min(1.0)[:, None]
    offset = torch.arange(bins) - corners[1:-1, None]
    weights = torch.minimum(1 + offset / width[:-1], 1 - offset / width[1:]).clamp_min(0)
    return (weights / weights.sum(1, keepdim=True)).float()


def stft(waves: Tensor, window: int, hop: int, n_fft: int | None = None) -> Tensor:
    """Short-time Fourier transform of waves [N, T]: complex [N, n_fft / 2 + 1, ceil(T / hop)].

    Hann windows are centered on every `hop`-th sample, with silence around the wave, and filled up with zeros
    to n_fft samples, by default `window`. A sine of amplitude 1 at the center of a bin has magnitude 1.
    """
    hann = torch.hann_window(window, device=waves.device, dtype=waves.dtype)
    spectra = torch.stft(
        waves, n_fft or window, hop, window, hann * 2 / hann.sum(), pad_mode="constant", return_complex=True
    )
    return spectra[..., : -(-waves.shape[-1] // hop)]
