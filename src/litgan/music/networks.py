"""Generator and discriminator of piano rolls after MuseGAN, with binary neurons at the output.

The latents of the generator are those of Dong et al. 2018, "MuseGAN: Multi-track sequential generative
adversarial networks for symbolic music generation and accompaniment" (the hybrid model with its temporal
structure). Its shared layers, followed by private layers of each track, and its binary output follow Dong &
Yang 2018, "Convolutional generative adversarial networks with binary neurons for polyphonic music
generation"; the discriminator has the reverse order, private layers first. Different from both papers,
convolutions run along time only, with the pitches of a step as channels, and there is no normalization.

Samples are [tracks, steps, pitches] of 0 (silent) and 1 (sounding). Each entry of `widths` is a factor of two
in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from litgan.condition import Condition, num_classes
from litgan.networks.layers import (
    SLOPE,
    Projection,
    add_spectral_norm,
    check_choice,
    check_input,
    check_widths,
    init_weights,
)

Voices = Literal["polyphonic", "monophonic"]


def binarize(logits: Tensor, voices: Voices) -> Tensor:
    """Converts logits to 0 and 1 with the straight-through estimator (Bengio et al. 2013, section 4).

    "polyphonic": [..., P] to [..., P], 1 where a logit is positive, with the gradient of the sigmoid.
    "monophonic": [..., P + 1] to [..., P], 1 at the largest logit only, with the gradient of the softmax; the
    last logit stands for a rest, which is all 0.
    """
    if voices == "polyphonic":
        soft, hard = torch.sigmoid(logits), (logits > 0).to(logits.dtype)
    else:
        soft = torch.softmax(logits, -1)[..., :-1]
        hard = torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)[..., :-1]
    return hard + (soft - soft.detach())  # the value of the bracket is exactly 0


def upsample(maps: Tensor) -> Tensor:
    """Doubles maps [B, C, steps] in time by nearest-neighbor interpolation."""
    return maps.repeat_interleave(2, -1)


class PrivateLayers(nn.Module):
    """Two layers per track: shared maps [B, C, steps], private latents [B, tracks, 2 * private_dim, bars] to
    logits [B, tracks * rows, steps]."""

    def __init__(self, tracks: int, inputs: int, width: int, rows: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(tracks * inputs, tracks * width, 3, padding=1, groups=tracks)
        self.last = nn.Conv1d(tracks * width, tracks * rows, 3, padding=1, groups=tracks)

    def forward(self, maps: Tensor, private: Tensor) -> Tensor:
        tracks, bars = private.shape[1], private.shape[3]
        own = private.repeat_interleave(maps.shape[-1] // bars, -1)  # [B, tracks, 2 * private_dim, steps]
        joined = torch.cat([maps[:, None].expand(-1, tracks, -1, -1), own], dim=2).flatten(1, 2)
        return self.last(leaky_relu(self.first(joined), SLOPE))


class PianoRollGenerator(nn.Module):
    """Generates piano rolls [B, tracks, steps, pitches] of 0 and 1 from latents [B, latent_dim].

    The latents have four parts: two are shared by all tracks, two are private to each track. Of each two, one
    is constant over the bars, and a layer maps the other to a vector per bar. The shared vectors of a bar
    become its first maps, which the shared stages upsample to all steps. At each resolution, the private
    layers of a track add to its logits, which are upsampled too (the skip connections of StyleGAN2, Karras et
    al. 2020, section 4.1). The finer ones are initialized to small weights, so that an untrained generator
    produces long notes.

    Args:
        sample_shape: [tracks, steps, pitches].
        num_classes: 0 for an unconditional generator, which ignores labels.
        bars: Number of bars of a sample.
        shared_dim: Size of each of the two shared parts of the latents.
        private_dim: Size of each of the two private parts of a track.
        widths: Channels of the shared stages, from the coarsest in time.
        private_width: Channels of the private layers of a track.
        voices: "polyphonic" decides on each pitch independently; "monophonic" chooses one pitch, or a rest,
            per track and step.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        bars: int = 2,
        shared_dim: int = 32,
        private_dim: int = 8,
        widths: Sequence[int] = (256, 128, 96),
        private_width: int = 48,
        voices: Voices = "polyphonic",
    ) -> None:
        super().__init__()
        check_choice("voices", voices, Voices)
        widths = check_widths(widths, self)
        self.tracks, steps, self.pitches = check_roll_shape(sample_shape, len(widths), self, bars)
        self.num_classes, self.bars, self.voices = num_classes, bars, voices
        self.shared_dim, self.private_dim = shared_dim, private_dim
        self.latent_dim = 2 * (shared_dim + self.tracks * private_dim)
        self.base_steps = steps // bars >> len(widths)
        rows = self.pitches + (voices == "monophonic")

        self.embed = nn.Embedding(num_classes, shared_dim) if num_classes else None
        self.shared_bars = nn.Linear(shared_dim, bars * shared_dim)
        self.private_bars = nn.Conv1d(
            self.tracks * private_dim, bars * self.tracks * private_dim, 1, groups=self.tracks
        )
        self.base = nn.Linear((3 if num_classes else 2) * shared_dim, widths[0] * self.base_steps)
        self.stages = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in pairwise((widths[0], *widths)))
        levels = [
            PrivateLayers(self.tracks, width + 2 * private_dim, private_width, rows) for width in widths
        ]
        self.levels = nn.ModuleList(levels)
        init_weights(self, "he")
        for finer in levels[1:]:
            nn.init.normal_(finer.last.weight, 0.0, 0.1 * finer.last.weight[0].numel() ** -0.5)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, latents, labels)
        shared, private = self.latents_per_bar(latents, labels)
        maps = self.base(shared).unflatten(-1, (-1, self.base_steps))  # [B, bars, width, base]
        maps = leaky_relu(maps.transpose(1, 2).flatten(2), SLOPE)
        logits: Tensor | None = None
        for stage, level in zip(self.stages, self.levels, strict=True):
            maps = leaky_relu(stage(upsample(maps)), SLOPE)
            level_logits = level(maps, private)
            logits = level_logits if logits is None else upsample(logits) + level_logits
        assert logits is not None
        return binarize(logits.unflatten(1, (self.tracks, -1)).transpose(2, 3), self.voices)

    def latents_per_bar(self, latents: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the shared and the private latents of each bar, [B, bars, 2 or 3 * shared_dim] and
        [B, tracks, 2 * private_dim, bars]; the third shared part is the embedding of the class."""
        shared, own = latents.split([2 * self.shared_dim, 2 * self.tracks * self.private_dim], dim=1)
        constant, per_bar = shared.chunk(2, dim=1)
        parts = [constant] if self.embed is None else [constant, self.embed(labels)]
        parts = [part[:, None].expand(-1, self.bars, -1) for part in parts]
        parts.append(leaky_relu(self.shared_bars(per_bar), SLOPE).unflatten(1, (self.bars, -1)))
        constant, per_bar = own.chunk(2, dim=1)
        per_bar = leaky_relu(self.private_bars(per_bar[..., None])[..., 0], SLOPE)
        per_bar = per_bar.view(latents.shape[0], self.tracks, self.private_dim, self.bars)
        constant = constant.view(latents.shape[0], self.tracks, self.private_dim, 1).expand_as(per_bar)
        return torch.cat(parts, dim=2), torch.cat([constant, per_bar], dim=2)


class PianoRollDiscriminator(nn.Module):
    """Maps piano rolls [B, tracks, steps, pitches] to logits [B, 1]; conditional by projection.

    A private layer per track and a layer on the pitch classes of all tracks (the chroma stream of Dong & Yang
    2018) are concatenated, then downsampled in time by 2 per entry of `widths`.

    Args:
        sample_shape: [tracks, steps, pitches].
        condition: 0, n classes, or a shape. One of a shape is ignored: it is a part of the samples
            (`harmony`).
        private_width: Channels of the private layer of each track, and of the chroma layer.
        widths: Channels of the merged stages, from the finest in time.
        spectral_norm: Divide every weight matrix by its spectral norm.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition = 0,
        *,
        private_width: int = 48,
        widths: Sequence[int] = (128, 192, 256),
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self)
        tracks, steps, pitches = check_roll_shape(sample_shape, len(widths), self)
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes(condition)
        self.private = nn.Conv1d(tracks * pitches, tracks * private_width, 3, padding=1, groups=tracks)
        self.chroma = nn.Conv1d(12, private_width, 3, padding=1)
        inputs = (tracks + 1) * private_width
        self.merged = nn.ModuleList(
            nn.Conv1d(a, b, 4, stride=2, padding=1) for a, b in pairwise((inputs, *widths))
        )
        self.head = Projection(widths[-1] * (steps >> len(widths)), self.num_classes)
        self.register_buffer(
            "classes", torch.eye(12).repeat(1, -(-pitches // 12))[:, :pitches], persistent=False
        )
        init_weights(self, "he")
        if spectral_norm:
            add_spectral_norm(self)

    classes: Tensor  # [12, pitches], one-hot pitch class of each row, counted from the lowest

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        chroma = self.classes.to(samples.dtype) @ samples.sum(1).transpose(1, 2)  # [B, 12, steps]
        streams = [self.private(samples.transpose(2, 3).flatten(1, 2)), self.chroma(chroma)]
        maps = leaky_relu(torch.cat(streams, dim=1), SLOPE)
        for stage in self.merged:
            maps = leaky_relu(stage(maps), SLOPE)
        return self.head(maps.flatten(1), labels)


def check_roll_shape(
    sample_shape: Sequence[int], halvings: int, owner: nn.Module, bars: int = 1
) -> tuple[int, int, int]:
    """Returns [tracks, steps, pitches].

    Raises ValueError: another number of dimensions, or the steps of a bar are not divisible by 2**halvings.
    """
    name = type(owner).__name__
    if len(sample_shape) != 3:
        raise ValueError(
            f"{name} needs piano rolls [tracks, steps, pitches], but the samples' shape is "
            f"{list(sample_shape)}: choose data of piano rolls."
        )
    tracks, steps, pitches = sample_shape
    if bars < 1 or halvings < 1 or steps % (bars << halvings):
        raise ValueError(
            f"{name} halves the {steps} steps of {bars} bars once per entry of widths, {halvings} times, "
            "which does not come out even: give another number of bars or of widths."
        )
    return tracks, steps, pitches
