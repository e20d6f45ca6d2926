"""What a sound is like, as numbers: log-mel statistics, and histograms of what the ear tells apart."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.metrics.features import FeatureExtractor
from litgan.sound.signals import mel_filterbank, mu_law_decode, stft

RATE = 16_000  # Hz, whose mel bands are taken: at another rate they stretch or shrink with it
WINDOW, HOP = 512, 128  # samples of a spectrum, and from one to the next
BANDS, SEGMENTS = 40, 16  # mel bands; equal parts of the sound, over which its envelope is taken
MIN_AMPLITUDE = 1e-4  # amplitude that is as good as silence: 80 dB below full scale
BINS = 12  # of each histogram
LOWEST_CENTROID = 40.0  # Hz, where the histogram of centroids begins


class SoundStatistics(FeatureExtractor):
    """Log-mel statistics of sounds [N, 1, T] of any length: no network, no weights, nothing drawn.

    Of the amplitudes in 40 mel bands, floored at -80 dB and told in decades (20 dB): the mean over time and
    the standard deviation over time of each band, then the level of each sixteenth of the sound; 96 features.
    The bands are those of a rate of 16 kHz. Metrics of its own (`table`), each the Jensen-Shannon divergence
    of two histograms of 12 bins, in bits, from 0 (alike) to 1 (nothing in common):

        metric/centroid_js: the spectral centroid in Hz, on a logarithmic axis: dark or bright.
        metric/envelope_js: the level of each sixteenth of the sound, 80 dB in all; mean over the sixteen.
        metric/flatness_js: the spectral flatness (geometric by arithmetic mean of the mean power spectrum,
            Johnston 1988) in dB: tone or noise.
    """

    name = "sound"
    dimension = 2 * BANDS + SEGMENTS
    detail_count = 2 + SEGMENTS
    mu_law = 0.0  # of the samples, as the data set says

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands", mel_filterbank(BANDS, WINDOW // 2 + 1, RATE))
        self.bands: Tensor
        self.freeze()

    def settle(self, data: Any) -> None:
        self.mu_law = getattr(data, "mu_law", 0.0)

    def check(self, samples: Tensor) -> None:
        if samples.ndim != 3 or samples.shape[1] != 1 or samples.shape[2] < SEGMENTS:
            raise ValueError(
                f"The extractor 'sound' looks at sounds [N, 1, T] of at least {SEGMENTS} samples, not at "
                f"{list(samples.shape)}: choose one that fits this data set."
            )

    def features(self, samples: Tensor) -> Tensor:
        waves = mu_law_decode(samples.squeeze(1), self.mu_law)
        levels = (self.bands @ stft(waves, WINDOW, HOP).abs()).clamp_min(MIN_AMPLITUDE).log10()
        return torch.cat([levels.mean(2), levels.std(2, correction=0), envelope(waves)], dim=1)

    def details(self, samples: Tensor) -> Tensor:
        """Of each sound the centroid (in halves of the sample rate), the flatness (dB) and the envelope."""
        waves = mu_law_decode(samples.squeeze(1).float(), self.mu_law)
        power = stft(waves, WINDOW, HOP).abs().square().mean(2) + 1e-12
        places = torch.linspace(0, 1, power.shape[1], device=power.device)
        centroid = (power * places).sum(1) / power.sum(1)
        flatness = 10 * (power.log10().mean(1) - power.mean(1).log10())
        return torch.cat([centroid[:, None], flatness[:, None], envelope(waves)], dim=1)

    def table(self, *, real: Tensor, fake: Tensor, data: Any) -> dict[str, float]:
        nyquist = data.sample_rate / 2
        octaves = torch.tensor([LOWEST_CENTROID / nyquist, 1.0]).log2().tolist()
        columns = range(2, 2 + SEGMENTS)
        levels = [js_divergence(real=real[:, k], fake=fake[:, k], low=-4.0, high=0.0) for k in columns]
        return {
            "centroid_js": js_divergence(
                real=real[:, 0].log2(), fake=fake[:, 0].log2(), low=octaves[0], high=0.0
            ),
            "envelope_js": sum(levels) / SEGMENTS,
            "flatness_js": js_divergence(real=real[:, 1], fake=fake[:, 1], low=-60.0, high=0.0),
        }


def envelope(waves: Tensor) -> Tensor:
    """Level (root mean square, in decades of full scale) of each sixteenth of waves [N, T], [N, 16]."""
    power = F.adaptive_avg_pool1d(waves.square()[:, None], SEGMENTS)[:, 0]
    return power.clamp_min(MIN_AMPLITUDE**2).log10() / 2


def js_divergence(*, real: Tensor, fake: Tensor, low: float, high: float) -> float:
    """Jensen-Shannon divergence (Lin 1991, eq. 4.1) in bits of the histograms of two sets of numbers.

    `BINS` equal bins from `low` to `high`; what lies outside falls into the nearest.
    """
    shares = []
    for values in (real, fake):
        places = ((values.double() - low) / (high - low) * BINS).floor().clamp(0, BINS - 1).long()
        shares.append(places.bincount(minlength=BINS).double() / len(values))
    mean = torch.stack(shares).mean(0)
    terms = [torch.special.xlogy(share, share / mean.clamp_min(1e-300)).sum() for share in shares]
    return torch.stack(terms).sum().item() / (2 * math.log(2))
