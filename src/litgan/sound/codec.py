"""A neural codec, from waves to codes and back, after SoundStream (Zeghidour et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.networks.layers import Condition, check_shape, check_widths
from litgan.networks.quantizers import (
    FiniteScalarQuantizer,
    Quantizer,
    VectorQuantizer,
    count_codes,
    perplexity_of,
)
from litgan.sound.hifigan import normalize_weights


class WaveCodec(nn.Module):
    """Waves [B, C, T], the condition, through `stages` codes for each frame of prod(strides) samples, back.

    The shape is SoundStream's (section III): residual units with dilated convolutions and a convolution of
    kernel size 2 stride for each stride; the decoder mirrors them; a residual quantizer is in between.
    Convolutions look to both sides, as in EnCodec for music (Défossez et al. 2022), where SoundStream's are
    causal; weights are normalized by weight normalization. Any T will do: a wave is padded with silence to
    whole frames, and the output, in (-1, 1), is cut to its length.

    After a forward pass `auxiliary_loss` [B] is the quantizers' loss, which a `reconstruction` term adds to
    the generator's, `codes` [B, stages, frames] are the codes and `perplexity` [stages] says how many of them
    were in use.

    Args:
        sample_shape: [C, T].
        condition: the same shape: the wave itself.
        quantizer: called without arguments it returns a `litgan.networks.quantizers.Quantizer`; `stages`
            times, one for what the one before has left.
        stages: number of quantizers, 8 in SoundStream at 6 kbit/s.
        strides: of the encoder's stages; the papers' are 2, 4, 5, 8.
        widths: channels from the wave down to the frames, one more than strides.
        dilations: of the residual units of a stage.

    Raises:
        ValueError: samples and condition are not waves of one shape, or an option is out of its range; in
            `forward` and `encode`, if the wave has another number of channels.
    """

    uses_batch_statistics = False
    latent_dim = 0

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition,
        *,
        quantizer: Callable[[], Quantizer] = VectorQuantizer,
        stages: int = 8,
        strides: Sequence[int] = (2, 4, 5, 8),
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        dilations: Sequence[int] = (1, 3, 9),
    ) -> None:
        super().__init__()
        if isinstance(condition, int) or len(sample_shape) != 2 or tuple(condition) != tuple(sample_shape):
            raise ValueError(
                f"WaveCodec makes waves [C, T] of the same waves, but the samples' shape is "
                f"{list(sample_shape)} and the condition is {condition}: choose data whose condition is the "
                "sample itself."
            )
        widths = check_widths(widths, self)
        if len(widths) != len(strides) + 1 or min(strides, default=2) < 2 or stages < 1:
            raise ValueError(
                f"WaveCodec has {stages} stages, strides {list(strides)} and widths {list(widths)}: give at "
                "least one stage, strides of at least 2, and one width more than strides."
            )
        self.channels, self.hop = sample_shape[0], math.prod(strides)
        self.quantizer = ResidualQuantizer(quantizer, stages)
        dim = self.quantizer.dim
        encoder: list[nn.Module] = [nn.Conv1d(self.channels, widths[0], 7, padding=3)]
        for (inputs, outputs), stride in zip(pairwise(widths), strides, strict=True):
            encoder += [*units(inputs, dilations), nn.ELU(), downsample(inputs, outputs, stride)]
        decoder: list[nn.Module] = [nn.Conv1d(dim, widths[-1], 7, padding=3)]
        for (outputs, inputs), stride in reversed([*zip(pairwise(widths), strides, strict=True)]):
            decoder += [nn.ELU(), upsample(inputs, outputs, stride), *units(outputs, dilations)]
        self.encoder = nn.Sequential(*encoder, nn.ELU(), nn.Conv1d(widths[-1], dim, 3, padding=1))
        self.decoder = nn.Sequential(*decoder, nn.ELU(), nn.Conv1d(widths[0], self.channels, 7, padding=3))
        normalize_weights(self)
        self.auxiliary_loss: Tensor | None = None
        self.codes: Tensor | None = None

    @property
    def perplexity(self) -> Tensor:
        """exp(entropy) of the last forward pass's codes, for each of the stages."""
        return perplexity_of(self.code_counts)

    @property
    def code_counts(self) -> Tensor:
        """How often each code is among those of the last forward pass, [stages, num_codes]."""
        assert self.codes is not None, "there was no forward pass"
        return torch.stack([count_codes(codes, self.quantizer.num_codes) for codes in self.codes.unbind(1)])

    @property
    def bits_per_sample(self) -> float:
        """What the codes of a sample in time take, if all are equally frequent."""
        return len(self.quantizer.stages) * math.log2(self.quantizer.num_codes) / self.hop

    def forward(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        waves = latents if condition is None else condition
        quantized, self.codes, self.auxiliary_loss = self._quantize(waves)
        return torch.tanh(self.decoder(quantized))[..., : waves.shape[-1]]

    def encode(self, waves: Tensor) -> Tensor:
        """Codes [B, stages, frames], int64, of waves [B, C, T]; frames is T / prod(strides), rounded up."""
        return self._quantize(waves)[1]

    def decode(self, codes: Tensor) -> Tensor:
        """Waves [B, C, frames * prod(strides)] of codes [B, stages, frames]; the first stages are enough."""
        return torch.tanh(self.decoder(self.quantizer.lookup(codes)))

    def _quantize(self, waves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_shape(self, waves, (self.channels, "T"))
        return self.quantizer(self.encoder(F.pad(waves, (0, -waves.shape[-1] % self.hop))))

    def __getstate__(self) -> dict[str, Any]:
        """For copies: without the last pass, which belongs to a graph."""
        return {**self.__dict__, "auxiliary_loss": None, "codes": None}


class ResidualQuantizer(nn.Module):
    """Each stage quantizes what the stages before it have left, Zeghidour et al. 2021, algorithm 1."""

    def __init__(self, quantizer: Callable[[], Quantizer], stages: int) -> None:
        super().__init__()
        made = [quantizer() for _ in range(stages)]
        self.stages, first = nn.ModuleList(made), made[0]
        if isinstance(first, FiniteScalarQuantizer) and stages > 1:
            raise ValueError(
                f"{stages} stages of a FiniteScalarQuantizer round to the same grid: give stages 1 and more "
                "levels, or a VectorQuantizer."
            )
        self.dim, self.num_codes = first.dim, first.num_codes

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The quantized vectors [B, dim, frames], codes int64 [B, stages, frames], and a loss [B]."""
        rest, found, codes, losses = vectors, list[Tensor](), list[Tensor](), list[Tensor]()
        for stage in self.stages:
            quantized, chosen, loss = stage(rest)
            rest = rest - quantized.detach()
            found.append(quantized)
            codes.append(chosen)
            losses.append(loss)
        # The gradient is that of the first stage: straight through to the vectors, once.
        quantized = found[0] + torch.stack(found[1:]).sum(0).detach() if found[1:] else found[0]
        return quantized, torch.stack(codes, 1), torch.stack(losses).mean(0)

    def lookup(self, codes: Tensor) -> Tensor:
        """The sum of the vectors [B, dim, frames] of the codes [B, at most stages, frames]."""
        stages: Any = self.stages
        found = [stage.lookup(one) for stage, one in zip(stages, codes.unbind(1), strict=False)]
        return torch.stack(found).sum(0)


class ResidualUnit(nn.Module):
    """Maps [B, C, T] plus a dilated convolution of them of kernel size 7, and one of size 1."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ELU(), nn.Conv1d(channels, channels, 7, padding=3 * dilation, dilation=dilation),
            nn.ELU(), nn.Conv1d(channels, channels, 1),
        )  # fmt: skip

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.layers(maps)


def units(channels: int, dilations: Sequence[int]) -> list[nn.Module]:
    return [ResidualUnit(channels, dilation) for dilation in dilations]


def downsample(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Maps [B, inputs, stride T] to [B, outputs, T]."""
    return nn.Sequential(
        nn.ConstantPad1d((stride // 2, stride - stride // 2), 0.0),
        nn.Conv1d(inputs, outputs, 2 * stride, stride),
    )


def upsample(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Maps [B, inputs, T] to [B, outputs, stride T]."""
    padding = -(-stride // 2)
    return nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride, padding=padding, output_padding=stride % 2)
