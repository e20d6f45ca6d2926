"""CLAP, the pretrained audio network whose embeddings give the Fréchet audio distance."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.extras import require
from litgan.metrics.extractors import FeatureExtractor
from litgan.sound.signals import mu_law_decode, resample

PUBLISHED = "laion/clap-htsat-unfused"  # Hugging Face hub, Apache-2.0; its audio half has 28 M weights


class Clap(FeatureExtractor):
    """Audio embeddings [N, 512] of CLAP (Wu et al. 2023), for the Fréchet distance of Gui et al. 2024.

    Sounds [N, 1, T] are resampled to 48 kHz. The network takes ten seconds: longer sounds are cut, shorter
    ones are repeated and padded with zeros, as in its training.

    Args:
        sample_rate: of the samples, in Hz; None takes the data set's, and 48 kHz without a data set.
        weights: a name on the Hugging Face hub, downloaded once (614 MB), or a folder of the same files.
        download: whether missing weights may be downloaded.

    Raises:
        ImportError: transformers is not installed, or torchaudio where sounds are resampled.
        FileNotFoundError: the weights are not on this machine, and `download` is false.
        RuntimeError: the weights are not on this machine and cannot be downloaded.
        ValueError: the weights are those of the CLAP variant that fuses several crops of long sounds.
    """

    name = "clap"
    mu_law = 0.0  # mu with which the samples are encoded; `setup` takes the data set's

    def __init__(
        self, sample_rate: int | None = None, *, weights: str = PUBLISHED, download: bool = True
    ) -> None:
        super().__init__()
        transformers = require("transformers", "clap")
        try:
            options = {"local_files_only": not download}
            preprocessor = transformers.ClapFeatureExtractor.from_pretrained(weights, **options)
            network = transformers.ClapAudioModelWithProjection.from_pretrained(weights, **options)
        except OSError as error:
            if not download:
                raise FileNotFoundError(
                    f"No CLAP weights {weights!r} are here, and no download was allowed: measure with the "
                    "extractor 'sound', or allow it (litgan evaluate --download)."
                ) from error
            raise RuntimeError(
                f"No CLAP weights at {weights!r}, neither as a folder nor on the Hugging Face hub: give "
                f"`weights` the folder of a download of {PUBLISHED}, or measure with the extractor 'sound'."
            ) from error
        if network.config.enable_fusion:
            raise ValueError(f"The CLAP weights {weights!r} fuse crops of long sounds: give {PUBLISHED!r}.")
        self.sample_rate, self.model_rate = sample_rate, preprocessor.sampling_rate
        self.hop, self.max_samples = preprocessor.hop_length, preprocessor.nb_max_samples
        self.network, self.dimension = network, network.config.projection_dim
        self.register_buffer("bands", torch.from_numpy(preprocessor.mel_filters_slaney.T).float())
        self.register_buffer("window", torch.hann_window(preprocessor.fft_window_size))
        self.bands: Tensor
        self.window: Tensor
        self.finalize()

    def check(self, samples: Tensor) -> None:
        if samples.ndim != 3 or samples.shape[1] != 1:
            raise ValueError(
                f"The extractor 'clap' needs sounds [N, 1, T], not {list(samples.shape)}: choose an "
                "extractor for this data set."
            )

    def setup(self, data: Any) -> None:
        rate = getattr(data, "sample_rate", self.sample_rate)
        if self.sample_rate not in (None, rate):
            raise ValueError(
                f"The extractor 'clap' has sample_rate {self.sample_rate}, but the data set has {rate} Hz: "
                "leave out the extractor's sample_rate."
            )
        self.sample_rate, self.mu_law = rate, getattr(data, "mu_law", 0.0)

    def features(self, samples: Tensor) -> Tensor:
        waves = mu_law_decode(samples.squeeze(1), self.mu_law)
        waves = resample(waves, self.sample_rate or self.model_rate, self.model_rate)[:, : self.max_samples]
        waves = waves.repeat(1, self.max_samples // waves.shape[1])
        waves = F.pad(waves, (0, self.max_samples - waves.shape[1]))
        return self.network(self.log_mel(waves)[:, None]).audio_embeds

    def log_mel(self, waves: Tensor) -> Tensor:
        """Log-mel spectrogram of waves [N, T] at 48 kHz, power in dB: [N, frames, bands]."""
        spectra = torch.stft(
            waves, len(self.window), self.hop, window=self.window, center=True, pad_mode="reflect",
            return_complex=True,
        )  # fmt: skip
        power = self.bands @ spectra.abs().square()
        return 10 * power.clamp_min(1e-10).log10().transpose(1, 2)

    def protocol(self) -> dict[str, Any]:
        return super().protocol() | {"sample_rate": self.sample_rate or self.model_rate}
