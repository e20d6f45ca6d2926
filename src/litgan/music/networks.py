"""Piano rolls: what MuseGAN shares between tracks and what it does not, with binary neurons at the output.

The generator's latents are MuseGAN's (Dong et al. 2018, "MuseGAN: Multi-track sequential generative
adversarial networks for symbolic music generation and accompaniment", the hybrid model and the temporal
structure). Its layers, shared ones first, then private ones a track, and its output are those of Dong & Yang
2018, "Convolutional generative adversarial networks with binary neurons for polyphonic music generation"; the
discriminator mirrors them, private streams first. Otherwise than there, convolutions run along time only, and
a step's pitches are channels, as the words of a vocabulary are; and there is no norm.

Samples are [tracks, steps, pitches] of 0 (silent) and 1 (sounding). One entry of `widths` is one factor of
two in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from litgan.networks.layers import (
    SLOPE,
    Projection,
    add_spectral_norm,
    check_input,
    check_labels,
    check_widths,
    initialise,
)

Voices = Literal["polyphonic", "monophonic"]


def binarize(logits: Tensor, voices: Voices) -> Tensor:
    """Logits to 0 and 1, with a gradient all the same (straight-through, Bengio et al. 2013, section 4).

    "polyphonic": [..., P], each by itself 1 above zero; its gradient is the sigmoid's. "monophonic":
    [..., P + 1] -> [..., P], 1 for the largest alone, and for none if that is the last, the rest; the
    gradient is the softmax's.
    """
    if voices == "polyphonic":
        soft, hard = torch.sigmoid(logits), (logits > 0).to(logits.dtype)
    else:
        soft = torch.softmax(logits, -1)[..., :-1]
        hard = torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)[..., :-1]
    return hard + (soft - soft.detach())  # the bracket is exactly 0


def upsample(maps: Tensor) -> Tensor:
    """Maps [B, C, steps] with each step repeated."""
    return maps.repeat_interleave(2, -1)


class PrivateLayers(nn.Module):
    """Two layers of each track's own: shared maps and private vectors to logits [B, tracks * rows, steps]."""

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
    """Latents [B, latent_dim] to piano rolls [B, tracks, steps, pitches] of 0 and 1.

    The latents are four parts: shared by all tracks and constant over the bars, shared and turned into one
    vector a bar, and for each track the same two again, private to it. A bar's shared vectors make its first
    maps, which layers common to all tracks double until they have all steps. At each resolution, layers of
    each track's own add to its logits, which are doubled along (the skip connections of StyleGAN2, Karras et
    al. 2020, section 4.1); finer ones begin small, so that an untrained generator holds its notes.

    Args:
        sample_shape: [tracks, steps, pitches].
        num_classes: 0 for an unconditional generator, which ignores labels.
        bars: In a sample.
        shared_dim: Length of each of the two shared parts of the latents.
        private_dim: Length of each of a track's two.
        widths: Channels of the shared stages, from the coarsest in time.
        private_width: Channels of a track's own layers.
        voices: "polyphonic" decides about each pitch by itself; "monophonic" about one pitch, or a rest, a
            track and step.

    Raises:
        ValueError: The steps of a bar cannot be halved once per entry of `widths`, or an option is unknown;
            in `forward`, latents of another length, or labels that are missing from a conditional generator
            or not integers [B].
    """

    mixes_samples = False

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
        if voices not in ("polyphonic", "monophonic"):
            raise ValueError(f"PianoRollGenerator has no voices {voices!r}: choose polyphonic or monophonic.")
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
        initialise(self, "he")
        for finer in levels[1:]:
            nn.init.normal_(finer.last.weight, 0.0, 0.1 * finer.last.weight[0].numel() ** -0.5)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        check_input(latents, (self.latent_dim,), self)
        labels = check_labels(labels, self.num_classes, latents.shape[0], self)
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
        """What each bar is made of: [B, bars, 2 or 3 * shared_dim] and [B, tracks, 2 * private_dim, bars]."""
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
    """Piano rolls [B, tracks, steps, pitches] to logits [B, 1]; conditional by projection.

    Each track passes through a layer of its own; what comes out is merged, with the pitch classes of all
    tracks together (Dong & Yang 2018, the chroma stream), and halved in time once per entry of `widths`.

    Args:
        sample_shape: [tracks, steps, pitches].
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        private_width: Channels of a track's own stream.
        widths: Channels of the merged stages, from the finest in time.
        spectral_norm: Every weight matrix divided by its spectral norm.

    Raises:
        ValueError: The steps cannot be halved once per entry of `widths`; in `forward`, samples of another
            shape, or labels that are missing from a conditional discriminator or not integers [B].
    """

    mixes_samples = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        private_width: int = 48,
        widths: Sequence[int] = (128, 192, 256),
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = check_widths(widths, self)
        tracks, steps, pitches = check_roll_shape(sample_shape, len(widths), self)
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        self.private = nn.Conv1d(tracks * pitches, tracks * private_width, 3, padding=1, groups=tracks)
        self.chroma = nn.Conv1d(12, private_width, 3, padding=1)
        inputs = (tracks + 1) * private_width
        self.merged = nn.ModuleList(
            nn.Conv1d(a, b, 4, stride=2, padding=1) for a, b in pairwise((inputs, *widths))
        )
        self.head = Projection(widths[-1] * (steps >> len(widths)), num_classes)
        self.register_buffer(
            "classes", torch.eye(12).repeat(1, -(-pitches // 12))[:, :pitches], persistent=False
        )
        initialise(self, "he")
        if spectral_norm:
            add_spectral_norm(self)

    classes: Tensor  # [12, pitches], which of the twelve a row is, counted from the lowest

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        check_input(samples, self.sample_shape, self)
        labels = check_labels(labels, self.num_classes, len(samples), self)
        chroma = self.classes.to(samples.dtype) @ samples.sum(1).transpose(1, 2)  # [B, 12, steps]
        streams = [self.private(samples.transpose(2, 3).flatten(1, 2)), self.chroma(chroma)]
        maps = leaky_relu(torch.cat(streams, dim=1), SLOPE)
        for stage in self.merged:
            maps = leaky_relu(stage(maps), SLOPE)
        return self.head(maps.flatten(1), labels)


def check_roll_shape(
    sample_shape: Sequence[int], halvings: int, owner: nn.Module, bars: int = 1
) -> tuple[int, int, int]:
    """The shape [tracks, steps, pitches]; ValueError unless each bar can be halved so often."""
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
