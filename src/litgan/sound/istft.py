"""A generator that writes a spectrum and inverts it: Kaneko et al. 2022 (iSTFTNet), Siuzdak 2023 (Vocos).

Its layers work on frames, of which there are a few hundred times fewer than samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.losses import to_float32
from litgan.networks.layers import PixelNorm, check_input, check_widths, init_weights, without_autocast

KERNEL = 7  # of a block's first convolution, as in Vocos
QUIET, RANGE = -7.0, 4.0  # mean and standard deviation of the natural logarithm of magnitudes in drums: one
# unit of the last layer is 35 dB, so that a sound can soon be silent where it has ended
LOUDEST = 1.0  # largest logarithm of a magnitude, so that no early mistake overflows


class InverseSTFT(nn.Module):
    """Spectra, as real and imaginary parts [B, n_fft / 2 + 1, frames], to waves [B, frames * hop].

    The least-squares inverse (Griffin & Lim 1984, eq. 6) of the transform with Hann windows that are centered
    on the middle of each `hop` samples, silence around: frames are windowed, added where they overlap, and
    divided by the sum of the squared windows. Magnitudes are scaled as in `signals.stft`. Unlike
    `torch.istft` it reads no value on the host.

    Raises:
        ValueError: hop is odd, or n_fft no multiple of it, from 2 on.
    """

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        if hop < 2 or hop % 2 or n_fft % hop or n_fft < 2 * hop:
            raise ValueError(
                f"InverseSTFT has n_fft {n_fft} and hop {hop}: give an even hop and two times it or more."
            )
        self.n_fft, self.hop = n_fft, hop
        hann = torch.hann_window(n_fft)
        self.register_buffer("window", hann * 2 / hann.sum(), persistent=False)
        self.window: Tensor

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        frames = torch.fft.irfft(torch.complex(real, imaginary), self.n_fft, dim=1).transpose(1, 2)
        power = self.window.square().expand(1, frames.shape[1], -1)
        return self._add(frames * self.window) / self._add(power)

    def _add(self, frames: Tensor) -> Tensor:
        """The sum [B, frames * hop] of overlapping frames [B, frames, n_fft], cut at both ends."""
        parts = frames.unflatten(2, (-1, self.hop)).unbind(2)
        shifted = [
            F.pad(part.flatten(1), (place * self.hop, (len(parts) - 1 - place) * self.hop))
            for place, part in enumerate(parts)
        ]
        margin = (self.n_fft - self.hop) // 2
        return torch.stack(shifted).sum(0)[:, margin:-margin]


class Block(nn.Module):
    """Maps [B, C, frames] plus layers of them, as in ConvNeXt (Liu et al. 2022) and Vocos.

    Those have a depthwise convolution and three times the channels inside, this one a full one and as many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            PixelNorm(),
            nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2),
            nn.GELU(),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.layers(maps)


class ISTFTGenerator(nn.Module):
    """Latents [B, latent_dim] to sounds [B, C, T] in (-1, 1), by way of their spectra.

    A linear layer gives widths[0] channels at the first frames, whose number doubles with each further width.
    The last layer gives the logarithm of the magnitude, and the phase, of each bin of T / hop frames (Siuzdak
    2023, section 3), which `InverseSTFT` inverts. Only the bin of 0 Hz is always empty: sounds have no mean,
    and discriminators of mel bands do not see one.

    Args:
        sample_shape: [C, T].
        num_classes: 0 for an unconditional generator, which ignores labels; else a learned embedding of
            size `latent_dim` is concatenated to the latents.
        latent_dim: dimension of the latents.
        n_fft: size of the Fourier transform, in samples.
        hop: from one frame to the next, in samples.
        widths: channels at each number of frames.
        depth: blocks of each width.

    Raises:
        ValueError: T is no multiple of hop * 2^(len(widths) - 1), or n_fft and hop do not fit; in `forward`,
            as `layers.check_input`.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        latent_dim: int = 64,
        n_fft: int = 1_024,
        hop: int = 256,
        widths: Sequence[int] = (256, 192, 128, 128),
        depth: int = 1,
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self, 1)
        step = hop << len(widths) - 1
        if len(sample_shape) != 2 or sample_shape[1] % step or sample_shape[1] < step:
            raise ValueError(
                f"ISTFTGenerator makes sounds [C, T] of hop * 2^(len(widths) - 1) = {step} samples or a "
                f"multiple, but the samples' shape is {list(sample_shape)}: change hop, widths, or "
                "data.length."
            )
        channels, length = sample_shape
        self.num_classes, self.latent_dim, self.sounds = num_classes, latent_dim, channels
        self.embed = nn.Embedding(num_classes, latent_dim) if num_classes else None
        self.first_shape = (widths[0], length // step)
        self.first = nn.Linear(2 * latent_dim if num_classes else latent_dim, widths[0] * self.first_shape[1])
        self.stages = nn.ModuleList(
            nn.Sequential(*([nn.Conv1d(*pair, 1)] if index else []), *(Block(pair[1]) for _ in range(depth)))
            for index, pair in enumerate(pairwise((widths[0], *widths)))
        )
        self.norm, self.last = PixelNorm(), nn.Conv1d(widths[-1], channels * n_fft, 1)
        self.inverse = InverseSTFT(n_fft, hop)
        init_weights(self, "he")
        nn.init.normal_(self.last.weight, 0.0, widths[-1] ** -0.5)
        self.last.weight.data[: len(self.last.weight) // 2] /= RANGE  # begins as noise of -36 dB

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, latents, labels)
        if self.embed is not None:
            latents = torch.cat([latents, self.embed(labels)], dim=1)
        maps = self.first(latents).unflatten(1, self.first_shape)
        for index, stage in enumerate(self.stages):
            maps = stage(maps.repeat_interleave(2, 2) if index else maps)
        spectra = self.last(self.norm(maps))
        with without_autocast(spectra.device):  # phases need float32, and there is no FFT in bf16
            levels, phases = to_float32(spectra).unflatten(1, (2, self.sounds, -1)).unbind(1)
            magnitudes = (RANGE * levels + QUIET).clamp(max=LOUDEST).exp()
            parts = [
                F.pad((magnitudes * wave(phases)).flatten(0, 1), (0, 0, 1, 0))
                for wave in (torch.cos, torch.sin)
            ]
            return torch.tanh(self.inverse(*parts)).unflatten(0, (-1, self.sounds))
