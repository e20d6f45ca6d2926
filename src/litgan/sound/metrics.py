"""Features and metrics of sounds without a network: log-mel statistics and histograms of timbre."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.metrics.distances import jensen_shannon
from litgan.metrics.extractors import FeatureExtractor
from litgan.sound.reconstruction import multi_resolution_stft
from litgan.sound.signals import mel_filterbank, mu_law_decode, stft

RATE = 16_000  # Hz, for which the mel bands are made; at another rate they scale with it
WINDOW, HOP = 512, 128  # samples, of the short-time Fourier transform
BANDS, SEGMENTS = 40, 16  # mel bands; equal parts of a sound, one envelope value for each
MIN_AMPLITUDE = 1e-4  # floor of all levels: 80 dB below full scale
BINS = 12  # of each histogram
LOWEST_CENTROID = 40.0  # Hz, lower end of the histogram of centroids


class SoundStatistics(FeatureExtractor):
    """Log-mel statistics of sounds [N, 1 or 2, T] of any length: deterministic, without weights.

    They are of the mean over the channels.

    The 96 features are the mean and the standard deviation over time of the log10 amplitude in each of 40
    mel bands, floored at -80 dB, and the level of each sixteenth of the sound. The bands are made for a rate
    of 16 kHz. `extra_metrics` adds three metrics, each the Jensen-Shannon divergence of two histograms of
    12 bins, in bits, from 0 (equal) to 1 (disjoint):

        metric/centroid_js: of the spectral centroid in Hz on a logarithmic axis; dark or bright.
        metric/envelope_js: of the level of each sixteenth of the sound, from -80 to 0 dB; mean over the
            sixteen.
        metric/flatness_js: of the spectral flatness in dB (ratio of the geometric to the arithmetic mean of
            the mean power spectrum, Johnston 1988); tone or noise.

    `pair_metrics` of a fake and the real sound of the same condition are, beside `l1` of the samples, `stft`
    (`reconstruction.multi_resolution_stft`) and `mel_l1`, the mean absolute difference of the natural
    logarithms of those amplitudes by band and time.
    """

    name = "sound"
    dimension = 2 * BANDS + SEGMENTS
    extras_size = 2 + SEGMENTS
    needs = ("sample_rate",)
    mu_law = 0.0  # mu with which the samples are encoded; `setup` takes the data set's

    def __init__(self) -> None:
        super().__init__()
        with torch.device("cpu"):  # whatever device networks are built on
            self.register_buffer("bands", mel_filterbank(BANDS, WINDOW // 2 + 1, RATE))
        self.bands: Tensor
        self.finalize()

    def setup(self, data: Any) -> None:
        super().setup(data)
        self.mu_law = getattr(data, "mu_law", 0.0)

    def check(self, samples: Tensor) -> None:
        if samples.ndim != 3 or samples.shape[1] > 2 or samples.shape[2] < SEGMENTS:
            raise ValueError(
                f"The extractor 'sound' needs sounds [N, 1 or 2, T] of at least {SEGMENTS} samples, not "
                f"{list(samples.shape)}: choose an extractor for this data set."
            )

    def features(self, samples: Tensor) -> Tensor:
        waves = mu_law_decode(samples, self.mu_law).mean(1)
        levels = self.levels(waves)
        return torch.cat([levels.mean(2), levels.std(2, correction=0), envelope(waves)], dim=1)

    def levels(self, waves: Tensor) -> Tensor:
        """Log10 amplitudes of waves [N, T] by mel band and time, [N, BANDS, frames]."""
        return (self.bands @ stft(waves, WINDOW, HOP).abs()).clamp_min(MIN_AMPLITUDE).log10()

    def pair_metrics(self, *, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        waves = [mu_law_decode(side.float(), self.mu_law) for side in (real, fake)]
        levels = [self.levels(side.mean(1)) for side in waves]
        return super().pair_metrics(real=real, fake=fake) | {
            "stft": multi_resolution_stft(real=waves[0], fake=waves[1]),
            "mel_l1": math.log(10) * (levels[0] - levels[1]).abs().mean((1, 2)),
        }

    def extras(self, samples: Tensor) -> Tensor:
        """Centroid (as a fraction of the Nyquist frequency), flatness (dB) and envelope of each sound."""
        waves = mu_law_decode(samples.float(), self.mu_law).mean(1)
        power = stft(waves, WINDOW, HOP).abs().square().mean(2) + 1e-12
        frequencies = torch.linspace(0, 1, power.shape[1], device=power.device)
        centroid = (power * frequencies).sum(1) / power.sum(1)
        flatness = 10 * (power.log10().mean(1) - power.mean(1).log10())
        return torch.cat([centroid[:, None], flatness[:, None], envelope(waves)], dim=1)

    def extra_metrics(self, *, real: Tensor, fake: Tensor, data: Any) -> dict[str, float]:
        lowest = math.log2(LOWEST_CENTROID / (data.sample_rate / 2))

        def divergence(column: int, low: float, high: float) -> float:
            sides = [side[:, column].log2() if column == 0 else side[:, column] for side in (real, fake)]
            counts = [histogram(side, low, high) for side in sides]
            return jensen_shannon(real=counts[0], fake=counts[1]).item()

        return {
            "centroid_js": divergence(0, lowest, 0.0),
            "envelope_js": sum(divergence(2 + part, -4.0, 0.0) for part in range(SEGMENTS)) / SEGMENTS,
            "flatness_js": divergence(1, -60.0, 0.0),
        }


def envelope(waves: Tensor) -> Tensor:
    """Level of each sixteenth of waves [N, T]: log10 of the root mean square, [N, 16]."""
    power = F.adaptive_avg_pool1d(waves.square()[:, None], SEGMENTS)[:, 0]
    return power.clamp_min(MIN_AMPLITUDE**2).log10() / 2


def histogram(values: Tensor, low: float, high: float) -> Tensor:
    """Counts of the values in `BINS` equal bins from `low` to `high`; values outside count in the nearest."""
    indices = ((values.double() - low) / (high - low) * BINS).floor().clamp(0, BINS - 1).long()
    return indices.bincount(minlength=BINS)
