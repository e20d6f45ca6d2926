"""Vocos, Siuzdak 2023: a vocoder that writes spectra, from mel spectrograms."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.losses import to_float32
from litgan.networks.layers import Condition, check_shape, without_autocast
from litgan.sound.istft import InverseSTFT
from litgan.sound.mel import MelSpectrogram

KERNEL, EPSILON = 7, 1e-6
QUIETEST, LOUDEST = 1e-5, 1e2  # magnitudes in FreeV's estimate, and in Vocos' spectra


class VocosGenerator(nn.Module):
    """Mel spectrograms [B, n_mels, frames] to waves [B, C, frames * hop], for any number of frames.

    ConvNeXt blocks (Liu et al. 2022) at the rate of the frames, and a last layer that gives the logarithm of
    the magnitude and the phase of each bin, section 3; hop is T / frames. It has no latents, and unlike
    HiFi-GAN's waves these have no bound. The defaults are the paper's, 13.5 M parameters with 100 bands.

    With `mel`, the transform that made the condition, the last layer only corrects the magnitudes: they
    begin as the least-squares estimate from the bands (Lv et al. 2024, FreeV, eq. 3), so that the phases are
    what is left to learn.

    Args:
        sample_shape: [C, T].
        condition: [n_mels, frames].
        n_fft: size of the Fourier transform, in samples.
        width: channels of a frame.
        inner: channels inside a block.
        depth: number of blocks.
        mel: the transform of the condition; it and the network share n_fft, hop and window.

    Raises:
        ValueError: n_fft, `mel` and the shapes do not fit together.
    """

    uses_batch_statistics = False
    latent_dim = 0

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition,
        *,
        n_fft: int = 1_024,
        width: int = 512,
        inner: int = 1_536,
        depth: int = 8,
        mel: MelSpectrogram | None = None,
    ) -> None:
        super().__init__()
        shape = () if isinstance(condition, int) else tuple(condition)
        if len(sample_shape) != 2 or len(shape) != 2 or sample_shape[1] % shape[1]:
            raise ValueError(
                "VocosGenerator makes sounds [C, T] of mel spectrograms [n_mels, frames], as many samples of "
                f"each frame, but the samples' shape is {list(sample_shape)} and the condition is "
                f"{condition}: change the data's length or hop."
            )
        hop, made = sample_shape[1] // shape[1], mel and (mel.n_fft, mel.hop, mel.window, len(mel.bands))
        if made and made != (n_fft, hop, n_fft, shape[0]):
            raise ValueError(
                f"VocosGenerator has n_fft {n_fft}, hop {hop} and {shape[0]} bands, but its mel has n_fft, "
                f"hop, window and bands {made}: give it the data's transform, with a window of n_fft."
            )
        self.condition, self.sounds = shape, sample_shape[0]
        self.first = nn.Conv1d(shape[0], width, KERNEL, padding=KERNEL // 2)
        self.first_norm, self.last_norm = (nn.LayerNorm(width, EPSILON) for _ in range(2))
        self.blocks = nn.Sequential(*(ConvNeXtBlock(width, inner, 1 / depth) for _ in range(depth)))
        self.last = nn.Linear(width, self.sounds * (n_fft + 2))
        self.inverse = InverseSTFT(n_fft, hop)
        self.unit = math.log(
            n_fft / 4
        )  # magnitude of a full sine under a Hann window, which the inverse has as 1
        self.estimate: Tensor | None
        self.register_buffer("estimate", None if mel is None else torch.linalg.pinv(mel.bands), False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv1d | nn.Linear) and layer.bias is not None:
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        """The waves of mel spectrograms [B, n_mels, frames]; latents are not read."""
        bands = latents if condition is None else condition  # no condition is refused for its shape
        check_shape(self, bands, (self.condition[0], "frames"))
        maps = self.first_norm(self.first(bands).mT).mT
        spectra = self.last(self.last_norm(self.blocks(maps).mT)).mT
        with without_autocast(spectra.device):  # phases need float32, and there is no FFT in bf16
            levels, phases = to_float32(spectra).unflatten(1, (2, self.sounds, -1)).unbind(1)
            if self.estimate is not None:
                magnitudes = self.estimate.to(levels.dtype) @ bands.to(levels.dtype).exp()
                levels = levels + magnitudes.abs().clamp_min(QUIETEST).log()[:, None]
            magnitudes = (levels.clamp(max=math.log(LOUDEST)) - self.unit).exp()
            parts = [(magnitudes * wave(phases)).flatten(0, 1) for wave in (torch.cos, torch.sin)]
            return self.inverse(*parts).unflatten(0, (-1, self.sounds))


class ConvNeXtBlock(nn.Module):
    """Maps [B, C, frames] plus a scaled change of them: Liu et al. 2022, figure 4, along one axis."""

    def __init__(self, channels: int, inner: int, scale: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, EPSILON)
        self.widen, self.narrow = nn.Linear(channels, inner), nn.Linear(inner, channels)
        self.scale = nn.Parameter(torch.full((channels,), scale))

    def forward(self, maps: Tensor) -> Tensor:
        changes = self.narrow(F.gelu(self.widen(self.norm(self.depthwise(maps).mT))))
        return maps + (self.scale * changes).mT
