"""Piano rolls note by note: a recurrent generator, and a discriminator that judges each note.

A note depends on all earlier steps and on the notes of the tracks above it in its own step. With the term
`Likelihood` the generator learns by maximum likelihood, as language models do; from the discriminator it
learns on its own samples, through straight-through Gumbel-softmax (Jang et al. 2017, "Categorical
reparameterization with Gumbel-softmax"). Each track has one note or a rest at a step.

Notes are one-hot vectors of pitches + 1 numbers, of which the last one is the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from litgan.condition import Condition, num_classes
from litgan.music.networks import binarize, check_roll_shape
from litgan.networks.layers import SLOPE, check_input, check_widths, condition_maps, init_weights
from litgan.noise import gumbel


def with_rests(rolls: Tensor) -> Tensor:
    """[..., pitches] of 0 and 1, at most one of them 1, to one-hot vectors [..., pitches + 1]."""
    return torch.cat([rolls, 1 - rolls.sum(-1, keepdim=True)], -1)


def at_temperature(scores: Tensor, temperature: float) -> Tensor:
    """Scores [..., pitches + 1] of which notes are drawn by softmax(scores / temperature).

    The rest stays as probable as it was: of long rests each step is nearly certain, and a temperature below 1
    would make silence of the bars that follow one.
    """
    if temperature == 1:
        return scores
    notes, rest = scores.split([scores.shape[-1] - 1, 1], -1)
    drawn = (notes / temperature).log_softmax(-1) + notes.logsumexp(-1, keepdim=True)
    return torch.cat([drawn, rest], -1)


class Tracks(nn.Module):
    """What stands before each step, and the notes above in the same step, to scores of a track's notes.

    The tracks are those from `first` on.
    """

    def __init__(self, inputs: int, width: int, notes: int, tracks: int, first: int = 0) -> None:
        super().__init__()
        own, self.first, self.scale = range(first, tracks), first, width**0.5
        self.before = nn.ModuleList(nn.Linear(inputs, width) for _ in own)
        self.above = nn.ModuleList(nn.Linear(notes * above, width, bias=False) for above in own if above)
        self.head = nn.ModuleList(nn.Linear(width, notes) for _ in own)

    def forward(self, track: int, before: Tensor, above: Sequence[Tensor]) -> Tensor:
        """[..., inputs] and a list of [..., notes] to [..., notes]."""
        hidden = self.before[track - self.first](before)
        if above:  # one-hot vectors, scaled to weigh as much as the inputs
            hidden = hidden + self.above[track - max(self.first, 1)](self.scale * torch.cat([*above], -1))
        scores: Tensor = self.head[track - self.first](leaky_relu(hidden, SLOPE))
        return scores


class Melody(nn.Module):
    """Given lines [B, steps, inputs] to [B, steps, width], with what comes before and after each step."""

    def __init__(self, inputs: int, width: int, dilations: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        self.first = nn.Conv1d(inputs, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=each, dilation=each) for each in dilations
        )

    def forward(self, lines: Tensor) -> Tensor:
        maps = self.first(lines.mT)
        for block in self.blocks:
            maps = maps + block(leaky_relu(maps, SLOPE))
        return maps.mT


class RecurrentRollGenerator(nn.Module):
    """Latents [B, latent_dim] to rolls [B, tracks, steps, pitches] of 0 and 1, from left to right.

    At each step the inputs of a GRU (Cho et al. 2014, section 2.3) are the notes of the step before, the
    code and the place in the bar. From its state each track, from the first one on, draws its note; the
    tracks after it see it. The gradient of a note reaches its own scores, as that of softmax(scores + Gumbel
    noise), and ends there: through the notes before, over a hundred draws, it explodes. So notes are drawn
    without a graph, and their scores are computed anew with one.

    With a roll as condition its first tracks are kept, and the others are made for them: the inputs of a step
    hold the given tracks before and after it, too. Rolls of any number of steps will do; the noise that draws
    notes then begins anew after `steps`.

    Args:
        sample_shape: [tracks, steps, pitches].
        condition: 0; n classes, of which an embedding is added to the code; or `sample_shape`.
        given: number of tracks of the condition that sound, the first ones; fewer than all.
        bars: number of bars of a sample.
        latent_dim: length of the code. The noise comes from further latents, which the attribute
            `latent_dim` counts too.
        width: length of the state.
        track_width: channels of the layers of a track.
        sampling_temperature: notes, unlike rests, are drawn by softmax(scores / temperature), in training,
            too; the likelihood is that of softmax(scores).

    Raises:
        ValueError: for a shape, a number of given tracks or a temperature that does not fit.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition = 0,
        *,
        given: int = 0,
        bars: int = 2,
        latent_dim: int = 32,
        width: int = 256,
        track_width: int = 128,
        sampling_temperature: float = 1.0,
    ) -> None:
        super().__init__()
        check_widths([width, track_width], self)
        if sampling_temperature <= 0:
            raise ValueError(
                f"RecurrentRollGenerator's sampling_temperature is {sampling_temperature}: give a positive "
                "number, such as 0.7."
            )
        self.sampling_temperature = sampling_temperature
        self.tracks, self.steps, pitches = check_roll_shape(sample_shape, 1, self, bars)
        if not 0 <= given < self.tracks or condition != (
            tuple(sample_shape) if given else num_classes(condition)
        ):
            raise ValueError(
                f"RecurrentRollGenerator is to make rolls of {given} of their {self.tracks} tracks, but the "
                f"condition is {condition}: choose data.function GivenTracks with as many, or `given: 0`."
            )
        self.condition, self.num_classes, self.given = condition, num_classes(condition), given
        self.period, self.notes, self.scale = self.steps // bars, pitches + 1, width**0.5
        self.code_dim = latent_dim
        self.latent_dim = latent_dim + self.steps * (self.tracks - given) * self.notes
        self.embed = nn.Embedding(self.num_classes, latent_dim) if self.num_classes else None
        self.first = nn.Linear(latent_dim, width)
        self.code = nn.Linear(latent_dim, width)
        self.place = nn.Embedding(self.period, width)
        self.melody = Melody(given * self.notes, width) if given else None
        self.last = nn.Linear(self.tracks * self.notes, width, bias=False)
        self.cell = nn.GRUCell(width, width)
        self.choices = Tracks(width, track_width, self.notes, self.tracks, given)

    def forward(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        state, inputs, given = self.start(latents, condition)
        noise = gumbel(latents[:, self.code_dim :]).unflatten(1, (self.steps, -1, self.notes))
        notes = self.draw(state, inputs, given, noise)
        if torch.is_grad_enabled():
            repeated = noise.repeat(1, -(-notes.shape[2] // self.steps), 1, 1)[:, : notes.shape[2]]
            scores = at_temperature(self.scores(state, inputs, notes), self.sampling_temperature)
            soft = (scores + repeated.transpose(1, 2)).softmax(-1)
            own = notes[:, self.given :] + (soft - soft.detach())  # the value of the bracket is exactly 0
            notes = torch.cat([notes[:, : self.given], own], 1)
        return notes[..., :-1]

    @torch.no_grad()
    def draw(self, state: Tensor, inputs: Tensor, given: Sequence[Tensor], noise: Tensor) -> Tensor:
        """Notes [B, tracks, steps, notes] from Gumbel noise [B, any number of steps, tracks, notes]."""
        last, steps = self.last.weight.new_zeros(len(inputs), self.tracks * self.notes), []
        for step in range(inputs.shape[1]):
            state = self.cell(inputs[:, step] + self.last(self.scale * last), state)
            notes = [line[:, step] for line in given]
            for track_noise in noise[:, step % self.steps].unbind(1):
                scores = self.choices(len(notes), state, notes).float()
                scores = at_temperature(scores, self.sampling_temperature)
                notes.append(with_rests(binarize(scores + track_noise, "monophonic")))
            last = torch.cat(notes, 1)
            steps.append(torch.stack(notes, 1))
        return torch.stack(steps, 2)

    def scores(self, state: Tensor, inputs: Tensor, notes: Tensor) -> Tensor:
        """Scores of all notes of the tracks that are not given, [B, tracks - given, steps, notes], each
        given the `notes` [B, tracks, steps, notes] before it."""
        lines = notes.unbind(1)
        before = F.pad(torch.cat(lines, 2)[:, :-1], (0, 0, 1, 0))  # [B, steps, tracks * notes]
        hidden = []
        for step_inputs in (inputs + self.last(self.scale * before)).unbind(1):
            state = self.cell(step_inputs, state)
            hidden.append(state)
        states = torch.stack(hidden, 1)
        found = [self.choices(track, states, lines[:track]) for track in range(self.given, self.tracks)]
        return torch.stack(found, 1).float()

    def log_likelihood(self, samples: Tensor, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        """Log-probability of rolls [B, tracks, steps, pitches], mean over the notes not given, nats [B]."""
        state, inputs, _ = self.start(latents, condition)
        notes = with_rests(samples)
        likelihoods = self.scores(state, inputs, notes).log_softmax(-1) * notes[:, self.given :]
        return likelihoods.sum(-1).mean((1, 2))

    def start(self, latents: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The first state [B, width], the inputs [B, steps, width] that do not depend on what is drawn, and
        the given tracks [B, steps, notes]."""
        labels, code = check_input(self, latents, condition), latents[:, : self.code_dim]
        if self.embed is not None:
            code = code + self.embed(labels)
        steps = self.steps
        given: tuple[Tensor, ...] = ()
        if self.melody is not None:
            (rolls,) = condition_maps(self, condition, latents.shape[0])
            given, steps = with_rests(rolls[:, : self.given]).clamp(min=0).unbind(1), rolls.shape[2]
        places = torch.arange(steps, device=latents.device) % self.period
        inputs = self.code(code)[:, None] + self.place(places)
        if self.melody is not None:
            inputs = inputs + self.melody(self.scale * torch.cat(given, 2))
        return self.first(code).tanh(), inputs, given


class CausalRollDiscriminator(nn.Module):
    """Rolls [B, tracks, steps, pitches] to one logit for each note, [B, tracks * steps].

    As the text wing's discriminator of characters does: a causal network maps the steps before, and the notes
    of the tracks above in the same step, to scores of all notes, and the note that is there selects its own.
    A logit is linear in its own note, so that its gradient holds the exact logit of every alternative.

    Args:
        sample_shape: [tracks, steps, pitches].
        condition: 0, n classes, or a shape. One of a shape is ignored: it is a part of the samples.
        bars: number of bars of a sample.
        width: channels.
        track_width: channels of the layers of a track.
        kernel: size of the convolutions' kernels, in steps.
        dilations: one residual block each (van den Oord et al. 2016, section 2.1).
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        condition: Condition = 0,
        *,
        bars: int = 2,
        width: int = 128,
        track_width: int = 96,
        kernel: int = 3,
        dilations: Sequence[int] = (1, 2, 4, 8),
    ) -> None:
        super().__init__()
        check_widths([width, track_width, kernel, *dilations], self)
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes(condition)
        self.tracks, self.steps, pitches = check_roll_shape(sample_shape, 1, self, bars)
        self.period, notes = self.steps // bars, pitches + 1
        self.last = nn.Conv1d(self.tracks * notes, width, 1)
        self.place = nn.Embedding(self.period, width)
        self.embed = nn.Embedding(self.num_classes, width) if self.num_classes else None
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, kernel, dilation=each) for each in dilations)
        self.reaches = [(kernel - 1) * dilation for dilation in dilations]
        self.scores = Tracks(width, track_width, notes, self.tracks)
        init_weights(self, "he")

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        notes = with_rests(samples)  # [B, tracks, steps, notes]
        lines = notes.transpose(2, 3).flatten(1, 2)
        places = torch.arange(self.steps, device=samples.device) % self.period
        maps = self.last(F.pad(lines[..., :-1], (1, 0))) + self.place(places).mT
        if self.embed is not None:
            maps = maps + self.embed(labels)[:, :, None]
        for block, reach in zip(self.blocks, self.reaches, strict=True):
            maps = maps + block(F.pad(leaky_relu(maps, SLOPE), (reach, 0)))
        before = leaky_relu(maps, SLOPE).mT  # [B, steps, width]
        tracks = notes.unbind(1)
        logits = [
            (self.scores(track, before, tracks[:track]) * tracks[track]).sum(-1)
            for track in range(self.tracks)
        ]
        return torch.cat(logits, 1)
