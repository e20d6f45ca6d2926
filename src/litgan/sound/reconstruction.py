"""How far a generated wave is from the real one: distances [B] of pairs, and the same as terms of a loss.

Waves [B, C, T] are linear amplitudes in [-1, 1]: leave `mu_law` of the data at 0. Use `torch.no_grad` to
measure.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from litgan.losses import to_float32
from litgan.penalties import Context, Reconstruction
from litgan.schedules import Schedule
from litgan.sound.mel import MelSpectrogram
from litgan.sound.signals import stft

# Size of the Fourier transform, hop and window, in samples at 24 kHz; Yamamoto et al. 2020, table 1.
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
LEAST = 1e-4  # floor of magnitudes: 80 dB below a sine at full scale


def multi_resolution_stft(
    *, real: Tensor, fake: Tensor, resolutions: Sequence[Sequence[int]] = RESOLUTIONS
) -> Tensor:
    """Yamamoto et al. 2020 (Parallel WaveGAN), eq. 3 to 6: the mean over resolutions (n_fft, hop, window) of

        ||R - F|| / ||R|| + mean |log R - log F|,

    spectral convergence and log magnitude, with R and F the magnitudes of real and fake: [B].
    """
    distances = []
    for n_fft, hop, window in resolutions:
        r, f = (_magnitudes(waves, n_fft, hop, window) for waves in (real, fake))
        convergence = torch.linalg.vector_norm(r - f, dim=1) / torch.linalg.vector_norm(r, dim=1)
        distances.append(convergence + (r.log() - f.log()).abs().mean(1))
    return torch.stack(distances).mean(0)


def mel_l1(*, real: Tensor, fake: Tensor, mel: MelSpectrogram) -> Tensor:
    """Mean absolute difference of log-mel spectrograms, Kong et al. 2020 (HiFi-GAN), eq. 3: [B]."""
    return (mel(real) - mel(fake)).abs().flatten(1).mean(1)


def _magnitudes(waves: Tensor, n_fft: int, hop: int, window: int) -> Tensor:
    """Magnitudes of waves [B, C, T], flattened, floored: [B, N]."""
    with torch.autocast(waves.device.type, enabled=False):
        spectra = stft(to_float32(waves).flatten(0, 1), window, hop, n_fft)
        power = spectra.real.square() + spectra.imag.square()
        return power.clamp_min(LEAST**2).sqrt().reshape(len(waves), -1)


class MultiResolutionSTFT(Reconstruction):
    """`multi_resolution_stft` as a term of the generator's loss.

    Args:
        weight: as in `Term`.
        resolutions: (n_fft, hop, window), in samples.
    """

    name = "stft"

    def __init__(
        self, weight: float | Schedule = 1.0, resolutions: Sequence[Sequence[int]] = RESOLUTIONS
    ) -> None:
        super().__init__(weight)
        self.resolutions = resolutions

    def __call__(self, context: Context) -> Tensor:
        return multi_resolution_stft(real=context.real, fake=context.fake, resolutions=self.resolutions)


class MelL1(Reconstruction):
    """`mel_l1` as a term of the generator's loss.

    Args:
        mel: the spectrogram; the paper's has bands up to half the sample rate, whatever the condition has.
        weight: as in `Term`; 45 in the paper, section 2.4.
    """

    name = "mel"

    def __init__(self, mel: MelSpectrogram, weight: float | Schedule = 45.0) -> None:
        super().__init__(weight)
        self.mel = mel

    def __call__(self, context: Context) -> Tensor:
        return mel_l1(real=context.real, fake=context.fake, mel=self.mel)
