"""Renders sounds: pictures of waveforms and spectrograms, WAV files, W&B audio."""

from __future__ import annotations

import math
import wave
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.files import atomic_write
from litgan.render import ImageBatch, SampleBatch, signed_heat, tile, tile_pairs
from litgan.sound.signals import mel_filterbank, mu_law_gradient, stft

WIDTH, WAVE_HEIGHT, BANDS = 128, 32, 64  # pixels of a tile: its width, the waveform's height, the mel bands
WINDOW_SECONDS = 0.032  # of the short-time Fourier transform
MIN_DB = -75.0  # shown as black; 0 dB is a sine at full scale
PAUSE_SECONDS = 0.1  # silence after each sound in a WAV file
MAX_PLAYERS = 8  # sounds that are logged to W&B
WAVE_COLOR = (255, 236, 179)  # RGB


class AudioBatch(SampleBatch):
    """Waves, int16 [N, T] or [N, C, T], at `sample_rate` Hz; `mu_law` is the mu with which networks get them.

    Pictures are of the mean over the channels.
    """

    caption = (
        "Below each sound (time to the right, low frequencies at the bottom) is its feedback: the loss makes "
        "the generator reduce what is red and amplify what is blue. Each sound has its own scale."
    )

    def __init__(self, waves: Tensor, sample_rate: int, mu_law: float = 0.0) -> None:
        if waves.dtype != torch.int16 or waves.ndim not in (2, 3):
            raise ValueError(
                f"Sounds are int16 of shape [N, T] or [N, C, T], not {waves.dtype} of {tuple(waves.shape)}: "
                "decode the samples first."
            )
        self.waves, self.sample_rate, self.mu_law = waves.cpu(), sample_rate, mu_law

    def __len__(self) -> int:
        return len(self.waves)

    def render(self, columns: int | None = None) -> Tensor:
        return tile(self._tiles(), columns)

    def _tiles(self) -> Tensor:
        """The waveform of each sound above its mel spectrogram, uint8 [N, H, WIDTH, 3]."""
        magnitudes = self._mel(self._stft(self._mono()).abs())
        levels = 1 - 20 * magnitudes.clamp_min(1e-9).log10() / MIN_DB
        mask = self._waveform_mask()[..., None]
        outlines = torch.where(mask, torch.tensor(WAVE_COLOR), shade(torch.zeros(())))
        return torch.cat([outlines.to(torch.uint8), shade(levels).flip(1)], dim=1)

    def render_with_grad(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """Rows of sounds, each row above a heat map of its feedback by mel band and time.

        The heat map is the derivative of the loss by the logarithm of each band's amplitude: Re(conj(F) X)
        averaged over the band and summed over the channels, where F and X are the spectra of feedback and
        sound (Parseval). The generator reduces what is red and amplifies what is blue.
        """
        waves, slopes = (
            each.reshape(len(self), -1, each.shape[-1]) for each in (self.waves / 32768, feedback)
        )
        gradients = slopes.cpu().float() * mu_law_gradient(waves, self.mu_law)
        products = (self._stft(gradients.flatten(0, 1)).conj() * self._stft(waves.flatten(0, 1))).real
        derivative = self._mel(products.unflatten(0, waves.shape[:2]).sum(1))
        heat = signed_heat(derivative.flip(1)[:, None]).permute(0, 2, 3, 1)
        return tile_pairs(self._tiles(), heat, columns)

    def save(self, stem: Path, picture: Tensor | None = None) -> list[Path]:
        """Writes the picture, and all sounds one after the other as 16-bit `<stem>.wav`."""
        written, path = super().save(stem, picture), stem.with_name(stem.name + ".wav")
        pause = round(PAUSE_SECONDS * self.sample_rate)
        with atomic_write(path) as partial, wave.open(str(partial), "wb") as file:
            channels = self.waves.shape[1] if self.waves.ndim == 3 else 1
            file.setparams((channels, 2, self.sample_rate, 0, "NONE", "not compressed"))
            frames = F.pad(self.waves, (0, pause)).view(len(self), channels, -1).transpose(1, 2)
            file.writeframes(frames.numpy().astype("<i2").tobytes())
        return [*written, path]

    def wandb_media(self) -> dict[str, Any]:
        """The first sounds as W&B audio; none if soundfile, which W&B needs, is not installed."""
        if find_spec("soundfile") is None:
            return {}
        import wandb

        waves = self.waves[:MAX_PLAYERS].numpy()
        return {"audio": [wandb.Audio(one.T, sample_rate=self.sample_rate) for one in waves]}

    def _mono(self) -> Tensor:
        """The mean over the channels, float32 [N, T]."""
        return self.waves.reshape(len(self), -1, self.waves.shape[-1]).float().mean(1) / 32768

    def _stft(self, waves: Tensor) -> Tensor:
        """Complex spectra [N, bins, at most WIDTH frames] of waves [N, T]."""
        window = 2 ** max(5, (round(self.sample_rate * WINDOW_SECONDS) - 1).bit_length())
        return stft(waves, window, hop=-(-waves.shape[1] // WIDTH))

    def _mel(self, spectrograms: Tensor) -> Tensor:
        """Mel spectrograms [N, BANDS, WIDTH] of real spectrograms [N, bins, frames]."""
        bands = mel_filterbank(BANDS, spectrograms.shape[1], self.sample_rate) @ spectrograms
        return F.interpolate(bands, WIDTH, mode="linear")

    def _waveform_mask(self) -> Tensor:
        """Pixels of the drawn waveforms, bool [N, WAVE_HEIGHT, WIDTH]."""
        waves = self._mono()[:, None]
        high = F.adaptive_max_pool1d(waves, WIDTH)
        low = -F.adaptive_max_pool1d(-waves, WIDTH)
        rows = torch.linspace(1, -1, WAVE_HEIGHT)[:, None]
        half = 1.01 / (WAVE_HEIGHT - 1)  # a row's half height, so that silence is drawn as a line
        return (rows <= high + half) & (rows >= low - half)


def shade(levels: Tensor) -> Tensor:
    """Levels from 0 to 1 as colors, uint8 [..., 3], from black over red to white."""
    colors = torch.tensor(matplotlib.colormaps["magma"](range(256)))[:, :3].float() * 255
    return colors.round().to(torch.uint8)[(levels.clamp(0, 1) * (len(colors) - 1)).round().long()]


def draw_spectrograms(levels: Tensor) -> ImageBatch:
    """Log amplitudes [N, bands, frames], natural, as pictures of the size of a sound's, without its waveform.

    Each is scaled by its own peak, which is at 0 dB.
    """
    levels = levels.detach().float().cpu()
    decibels = 20 / math.log(10) * (levels - levels.amax((1, 2), keepdim=True))
    tiles = F.interpolate(1 - decibels[:, None] / MIN_DB, (BANDS, WIDTH), mode="nearest")
    colors = shade(F.pad(tiles[:, 0].flip(1), (0, 0, WAVE_HEIGHT, 0)))
    return ImageBatch(colors.permute(0, 3, 1, 2))
