"""Sounds: spectrograms below waveforms, .wav files, audio players."""

from __future__ import annotations

import wave
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.files import whole
from litgan.media.base import GAP, Media, stack, tile
from litgan.media.images import signed_heat
from litgan.sound.signals import mel_filterbank, mu_law_gradient, stft

WIDTH, WAVE_HEIGHT, BANDS = 128, 32, 64  # pixels of a tile: its width, the waveform's height, the mel bands
WINDOW_SECONDS = 0.032  # seconds of a spectrum
MIN_DB = -75.0  # dB that are still black, of 0 for a sine at full scale
PAUSE_SECONDS = 0.1  # seconds of silence after each sound in a file
MAX_PLAYERS = 8  # sounds that can be played in W&B
WAVE_COLOR = (255, 236, 179)  # of the waveform, on the colour of silence


class AudioBatch(Media):
    """Waves of one channel, int16 [N, T], at `sample_rate` Hz; the networks see them companded by this mu."""

    legend = (
        "Below each sound (time to the right, low frequencies at the bottom) the feedback that it gets: the "
        "generator is pushed to make quieter what is red and louder what is blue. Each has its own scale."
    )

    def __init__(self, waves: Tensor, sample_rate: int, mu_law: float = 0.0) -> None:
        if waves.dtype != torch.int16 or waves.ndim != 2:
            raise ValueError(
                f"Sounds are int16 of shape [N, T], not {waves.dtype} of {tuple(waves.shape)}: "
                "decode the samples first."
            )
        self.waves, self.sample_rate, self.mu_law = waves.cpu(), sample_rate, mu_law

    def __len__(self) -> int:
        return len(self.waves)

    def picture(self, columns: int | None = None) -> Tensor:
        """Of each sound the waveform, and below it the spectrogram: low mel bands at the bottom."""
        magnitudes = self._mel(self._stft(self.waves / 32768).abs())
        levels = 1 - 20 * magnitudes.clamp_min(1e-9).log10() / MIN_DB
        colours = torch.tensor(matplotlib.colormaps["magma"](range(256)))[:, :3].float()
        shades = colours[(levels.clamp(0, 1) * (len(colours) - 1)).round().long()]
        spectrograms = (shades * 255).round().to(torch.uint8).flip(1)
        outlines = torch.where(self._waveform_mask()[..., None], torch.tensor(WAVE_COLOR), colours[0] * 255)
        return tile(torch.cat([outlines.to(torch.uint8), spectrograms], dim=1), columns)

    def criticised(self, feedback: Tensor, columns: int | None = None) -> Tensor:
        """Rows of sounds, each above its feedback by mel band and time: the generator is pushed to make
        quieter what is red and louder what is blue.

        Shown is the derivative of the loss by the logarithm of each band's amplitude: Re(conj(F) X), with
        F and X the spectra of feedback and sound, summed over the band (Parseval).
        """
        columns = columns or len(self)
        waves = self.waves / 32768
        found = self._stft(feedback.cpu().float().flatten(1) * mu_law_gradient(waves, self.mu_law))
        push = self._mel((found.conj() * self._stft(waves)).real)
        heat = signed_heat(push.flip(1)[:, None]).permute(0, 2, 3, 1)
        pairs = zip(self.waves.split(columns), heat.split(columns), strict=True)
        rows = [
            row
            for waves, hot in pairs
            for row in (AudioBatch(waves, self.sample_rate).picture(columns), tile(hot, columns))
        ]
        return stack(rows, gap=GAP)

    def save(self, stem: Path, picture: Tensor | None = None) -> list[Path]:
        """The picture, and all sounds one after the other in `<stem>.wav`, 16 bits a sample."""
        written, path = super().save(stem, picture), stem.with_name(stem.name + ".wav")
        pause = round(PAUSE_SECONDS * self.sample_rate)
        with whole(path) as partial, wave.open(str(partial), "wb") as file:
            file.setparams((1, 2, self.sample_rate, 0, "NONE", "not compressed"))
            file.writeframes(F.pad(self.waves, (0, pause)).numpy().astype("<i2").tobytes())
        return [*written, path]

    def players(self) -> dict[str, Any]:
        """The first sounds, where soundfile is there to write them for W&B."""
        if find_spec("soundfile") is None:
            return {}
        import wandb

        waves = self.waves[:MAX_PLAYERS].numpy()
        return {"audio": [wandb.Audio(one, sample_rate=self.sample_rate) for one in waves]}

    def _stft(self, waves: Tensor) -> Tensor:
        """Complex [N, bins, at most WIDTH frames]."""
        window = 2 ** max(5, (round(self.sample_rate * WINDOW_SECONDS) - 1).bit_length())
        return stft(waves, window, hop=-(-waves.shape[1] // WIDTH))

    def _mel(self, spectrograms: Tensor) -> Tensor:
        """Means of real spectrograms over mel bands, [N, BANDS, WIDTH]."""
        bands = mel_filterbank(BANDS, spectrograms.shape[1], self.sample_rate) @ spectrograms
        return F.interpolate(bands, WIDTH, mode="linear")

    def _waveform_mask(self) -> Tensor:
        """Where the waveform passes, bool [N, WAVE_HEIGHT, WIDTH]."""
        waves = self.waves[:, None].float() / 32768
        high = F.adaptive_max_pool1d(waves, WIDTH)
        low = -F.adaptive_max_pool1d(-waves, WIDTH)
        rows = torch.linspace(1, -1, WAVE_HEIGHT)[:, None]
        half = 1.01 / (WAVE_HEIGHT - 1)  # of a row, so that silence is a line
        return (rows <= high + half) & (rows >= low - half)
