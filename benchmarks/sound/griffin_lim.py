"""What a vocoder has to beat: phases found by Griffin & Lim 1984, without a network or a training set."""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor

from litgan.sound import MelSpectrogram

FITS, ITERATIONS = 100, 60  # steps of the magnitudes' fit; passes from spectra to waves and back


def griffin_lim(levels: Tensor, mel: MelSpectrogram, seed: int = 0) -> Tensor:
    """Waves [N, 1, frames * hop] of log-mel spectrograms [N, n_mels, frames] as `mel` makes them.

    Magnitudes are the non-negative least-squares fit to the bands, by the multiplicative steps of Lee & Seung
    2001 from the pseudoinverse's. Phases follow with the momentum of Perraudin et al. 2013.
    """
    bands, target = mel.bands.to(levels.device), levels.exp()
    magnitudes = (torch.linalg.pinv(bands) @ target).clamp_min(1e-6)
    for _ in range(FITS):
        magnitudes = magnitudes * (bands.T @ target) / (bands.T @ (bands @ magnitudes)).clamp_min(1e-12)
    # The library centers frame k on sample k hop, `mel` on (k + 1/2) hop: one more frame on each side, and
    # half a hop is cut.
    magnitudes = torch.cat([magnitudes[..., :1], magnitudes, magnitudes[..., -1:]], -1)
    length, frames = levels.shape[-1] * mel.hop, levels.shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        waves = torchaudio.functional.griffinlim(
            magnitudes, torch.hann_window(mel.window, device=levels.device), mel.n_fft, mel.hop, mel.window,
            power=1.0, n_iter=ITERATIONS, momentum=0.99, length=(frames + 1) * mel.hop, rand_init=True,
        )  # fmt: skip
    return waves[:, None, mel.hop // 2 :][..., :length].clamp(-1, 1)
