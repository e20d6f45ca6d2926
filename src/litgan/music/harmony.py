"""Harmonization: the lower voices of a piano roll, made from the upper ones.

Samples and conditions are rolls [tracks, steps, pitches] of one shape: in a condition only the given tracks
sound, and a sample has them unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, leaky_relu, pad

from litgan.condition import Condition
from litgan.data import Transform
from litgan.music.counterpoint import voice_lines
from litgan.music.networks import binarize, upsample
from litgan.networks.layers import SLOPE, check_shape, check_widths, condition_maps, init_weights
from litgan.penalties import Context, Reconstruction


class GivenTracks(Transform):
    """Rolls in which only the first `count` tracks sound, e.g. the soprano."""

    def __init__(self, count: int = 1) -> None:
        if count < 1:
            raise ValueError(f"GivenTracks keeps {count} tracks: give at least 1.")
        self.count = count

    def __call__(self, samples: Tensor) -> Tensor:
        return torch.cat([samples[:, : self.count], torch.zeros_like(samples[:, self.count :])], 1)


class HarmonyGenerator(nn.Module):
    """Conditions to rolls [B, tracks, steps, pitches] of 0 and 1: a U-Net along time.

    After Ronneberger et al. 2015 and, as a generator with a condition, Isola et al. 2017. Convolutions run
    along time, with the pitches of a step as channels. Each width but the first halves the time, the decoder
    doubles it again and gets the encoder's maps beside its own. Latents are the same at all steps. Rolls of
    any number of steps will do: they are padded with silence, and the output is cut.

    Each track that is not given has one note, or a rest, at each step (`networks.binarize`). After a forward
    pass `logits` [B, tracks - given, pitches + 1, steps] are what was chosen from, for `NoteCrossEntropy`;
    the last pitch is the rest.

    Args:
        sample_shape: [tracks, steps, pitches].
        condition: the same shape.
        given: number of tracks of the condition that sound, the first ones; fewer than all.
        latent_dim: length of the latents; 0 for none.
        widths: channels of each stage, from the finest in time.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition,
        *,
        given: int = 1,
        latent_dim: int = 16,
        widths: Sequence[int] = (128, 160, 192, 224, 256),
    ) -> None:
        super().__init__()
        if len(sample_shape) != 3 or condition != tuple(sample_shape) or not 1 <= given < sample_shape[0]:
            raise ValueError(
                f"HarmonyGenerator makes rolls of {given} of their tracks, but the samples' shape is "
                f"{list(sample_shape)} and the condition is {condition}: choose data.function GivenTracks "
                "with as many, of data of piano rolls with more."
            )
        widths = check_widths(widths, self)
        self.condition: Condition = condition
        self.tracks, _, self.pitches = sample_shape
        self.given, self.latent_dim = given, latent_dim
        self.first = nn.Conv1d(given * self.pitches + latent_dim, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv1d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.middle = nn.Conv1d(widths[-1], widths[-1], 3, padding=1)
        self.up = nn.ModuleList(
            nn.Conv1d(below + beside, beside, 3, padding=1) for beside, below in reversed([*pairwise(widths)])
        )
        self.head = nn.Conv1d(widths[0], (self.tracks - given) * (self.pitches + 1), 1)
        self.logits: Tensor | None = None
        init_weights(self, "he")

    def forward(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        check_shape(self, latents, (self.latent_dim,))
        (rolls,) = condition_maps(self, condition, latents.shape[0])
        steps, given = rolls.shape[2], rolls[:, : self.given]
        lines = given.transpose(2, 3).flatten(1, 2)  # [B, given * pitches, steps]
        lines = pad(lines, (0, -steps % 2 ** len(self.down)))
        maps = torch.cat([lines, latents[:, :, None].expand(-1, -1, lines.shape[2])], 1)
        maps = leaky_relu(self.first(maps), SLOPE)
        beside = []
        for stage in self.down:
            beside.append(maps)
            maps = leaky_relu(stage(maps), SLOPE)
        maps = leaky_relu(self.middle(maps), SLOPE)
        for stage in self.up:
            maps = leaky_relu(stage(torch.cat([upsample(maps), beside.pop()], 1)), SLOPE)
        logits = self.head(maps)[..., :steps].unflatten(1, (self.tracks - self.given, self.pitches + 1))
        self.logits = logits
        return torch.cat([given, binarize(logits.transpose(2, 3), "monophonic")], 1)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no logits, whose graph cannot be copied."""
        return {**self.__dict__, "logits": None}


class NoteCrossEntropy(Reconstruction):
    """Cross-entropy in nats of the real note or rest of a track at a step, mean over a sample's.

    Of the generator's `logits`, as `HarmonyGenerator` has them. Of a chord its highest note is meant.
    """

    name = "note_cross_entropy"

    def __call__(self, context: Context) -> Tensor:
        logits: Tensor | None = getattr(context.generator, "logits", None)
        if logits is None:
            raise ValueError(
                f"NoteCrossEntropy finds no logits in {type(context.generator).__name__}: leave the term "
                "out, or take a generator such as HarmonyGenerator."
            )
        rest = logits.shape[2] - 1
        lines = voice_lines(context.real[:, -logits.shape[1] :] > 0.5)
        notes = torch.where(lines > 0, lines - 1, rest)
        losses = cross_entropy(logits.float().transpose(1, 2), notes, reduction="none")
        return losses.flatten(1).mean(1)
