"""Discriminators of spectrograms at several resolutions, after Jang et al. 2021 (UnivNet)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from litgan.condition import Condition
from litgan.losses import to_float32
from litgan.networks.layers import (
    SLOPE,
    Projection,
    check_input,
    check_widths,
    init_weights,
    without_autocast,
)
from litgan.sound.signals import mel_filterbank, mu_law_encode, stft

LEAST = 1e-8  # added to the power in a band: -80 dB


class SpectrogramDiscriminator(nn.Module):
    """Sounds [B, C, T] to logits [B, K]: a discriminator of each of K spectrograms (UnivNet, section 2.3).

    A spectrogram has the amplitudes in mel bands, mu-law encoded so that quiet parts count as they do to the
    ear. Convolutions of kernel size 3 and stride 2 follow, one for each width, and one logit for the whole
    sound, by projection (`layers.Projection`): the paper has one for each patch, and no bands. `logit_counts`
    makes the loss the sum over the discriminators.

    Args:
        sample_shape: [C, T].
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        resolutions: window and hop, in samples, and mel bands of each spectrogram.
        widths: channels of each convolution.
        sample_rate: in Hz, for the bands.
        mu_law: mu with which amplitudes are encoded; 0 for none.
        beside: one more discriminator, of the waves, whose logits come last: called with (sample_shape,
            num_classes).

    Raises:
        ValueError: the samples are no sounds, or there is no resolution; in `forward`, as
            `layers.check_input`.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        resolutions: Sequence[Sequence[int]] = ((1_024, 256, 80), (256, 64, 40)),
        widths: Sequence[int] = (16, 32, 64, 128),
        sample_rate: int = 16_000,
        mu_law: float = 255.0,
        beside: Callable[[tuple[int, ...], Condition], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self, 1)
        if len(sample_shape) != 2 or not resolutions:
            raise ValueError(
                f"SpectrogramDiscriminator has {len(resolutions)} resolutions for samples of shape "
                f"{list(sample_shape)}: give at least one, and sounds [C, T]."
            )
        channels, length = sample_shape
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        self.resolutions, self.mu_law = tuple(tuple(each) for each in resolutions), mu_law
        self.backbones, self.heads = nn.ModuleList(), nn.ModuleList()
        for index, (window, hop, bands) in enumerate(self.resolutions):
            layers: list[nn.Module] = []
            for pair in pairwise((channels, *widths)):
                layers += [nn.Conv2d(*pair, 3, 2, 1), nn.LeakyReLU(SLOPE)]
            self.backbones.append(nn.Sequential(*layers))
            height, width = bands, -(-length // hop)
            for _ in widths:
                height, width = -(-height // 2), -(-width // 2)
            self.heads.append(Projection(widths[-1] * height * width, num_classes))
            weights = mel_filterbank(bands, window // 2 + 1, sample_rate)
            self.register_buffer(f"bands_{index}", weights, persistent=False)
        init_weights(self, "he")
        self.beside: Any = beside and beside(self.sample_shape, num_classes)
        self.logit_counts = (
            *(1 for _ in self.resolutions),
            *getattr(self.beside, "logit_counts", (1,) * bool(beside)),
        )
        self.uses_batch_statistics = getattr(self.beside, "uses_batch_statistics", False)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        known = check_input(self, samples, labels)
        logits = [
            head(backbone(self.spectrogram(samples, index)).flatten(1), known)
            for index, (backbone, head) in enumerate(zip(self.backbones, self.heads, strict=True))
        ]
        return torch.cat([*logits, *([self.beside(samples, labels)] if self.beside else [])], 1)

    def spectrogram(self, samples: Tensor, index: int) -> Tensor:
        """Encoded amplitudes [B, C, bands, frames] of sounds [B, C, T] at a resolution."""
        window, hop, _ = self.resolutions[index]
        with without_autocast(samples.device):
            spectra = stft(to_float32(samples).flatten(0, 1), window, hop)
            power = spectra.real.square() + spectra.imag.square()
            amplitudes = (getattr(self, f"bands_{index}").to(power.dtype) @ power + LEAST).sqrt()
            return mu_law_encode(amplitudes, self.mu_law).unflatten(0, samples.shape[:2])
