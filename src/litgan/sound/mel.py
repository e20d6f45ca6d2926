"""Log-mel spectrograms: what a vocoder is conditioned on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.data.derived import Transform
from litgan.extras import require
from litgan.losses import to_float32
from litgan.noise import send
from litgan.render import ImageBatch
from litgan.sound.render import draw_spectrograms

LEAST_POWER, LEAST_LEVEL = 1e-9, 1e-5  # added to the power of a bin; floor of the amplitude in a band


class MelSpectrogram(Transform):
    """Waves [B, C, T] to the logarithm of their amplitude in mel bands: float32 [B, n_mels, T // hop].

    As in the code of HiFi-GAN (Kong et al. 2020): the wave is reflected by (n_fft - hop) / 2 samples at both
    ends, bands are Slaney's (librosa's default), and levels are ln(max(amplitude, 1e-5)). Channels are
    averaged. Waves are linear amplitudes in [-1, 1]: leave `mu_law` of the data at 0. Differentiable.

    Args:
        sample_rate: in Hz.
        n_fft: size of the Fourier transform, in samples.
        hop: from one frame to the next, in samples.
        window: length of the Hann window, in samples, at most n_fft.
        n_mels: number of bands.
        fmin: lower end of the lowest band, in Hz.
        fmax: upper end of the highest band, in Hz; null for half of sample_rate.

    Raises:
        ImportError: torchaudio is not installed.
        ValueError: an option is out of range, or, in a call, a wave is too short to be reflected.
    """

    def __init__(
        self,
        sample_rate: int = 22_050,
        n_fft: int = 1_024,
        hop: int = 256,
        window: int = 1_024,
        n_mels: int = 80,
        fmin: float = 0.0,
        fmax: float | None = None,
    ) -> None:
        highest = sample_rate / 2 if fmax is None else fmax
        in_order = 1 <= hop <= window <= n_fft and (n_fft - hop) % 2 == 0
        if not in_order or n_mels < 1 or not 0 <= fmin < highest <= sample_rate / 2:
            raise ValueError(
                f"MelSpectrogram has n_fft {n_fft}, window {window}, hop {hop}, n_mels {n_mels} and bands "
                f"from {fmin} to {highest} Hz at a sample_rate of {sample_rate}: give hop <= window <= n_fft "
                "with n_fft - hop even, at least one band, and fmin < fmax <= sample_rate / 2."
            )
        self.n_fft, self.hop, self.window = n_fft, hop, window
        functional = require("torchaudio", "sound").functional
        with torch.device("cpu"):  # it reads the values, which there are none of on the meta device
            bands = functional.melscale_fbanks(
                n_fft // 2 + 1, fmin, highest, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
            )
        self.bands = bands.T  # [n_mels, n_fft // 2 + 1]; moves to the device of the waves

    def __call__(self, samples: Tensor) -> Tensor:
        waves, margin = samples, (self.n_fft - self.hop) // 2
        if waves.ndim != 3 or waves.shape[2] <= margin or waves.shape[2] < self.hop:
            raise ValueError(
                f"MelSpectrogram takes waves [B, C, T] longer than {max(margin, self.hop - 1)} samples, not "
                f"{list(waves.shape)}: give longer ones, or a smaller n_fft or hop."
            )
        if self.bands.device != waves.device:
            self.bands = send(self.bands, waves.device)
        with torch.autocast(waves.device.type, enabled=False):
            waves = F.pad(to_float32(waves).mean(1, keepdim=True), (margin, margin), mode="reflect")[:, 0]
            hann = torch.hann_window(self.window, dtype=waves.dtype, device=waves.device)
            spectra = torch.stft(
                waves, self.n_fft, self.hop, self.window, hann, center=False, return_complex=True
            )
            power = spectra.real.square() + spectra.imag.square() + LEAST_POWER
            return (self.bands.to(waves.dtype) @ power.sqrt()).clamp_min(LEAST_LEVEL).log()

    def decode(self, levels: Tensor) -> ImageBatch:
        """Spectrograms [N, n_mels, frames] as pictures, which stand beside those of sounds."""
        return draw_spectrograms(levels)
