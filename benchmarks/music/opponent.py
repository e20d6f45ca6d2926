"""What a GAN of music has to beat: a model without a network, and one that predicts the next note.

`opponents` gives their samples, [count, *sample_shape] as the discriminator sees them.
"""

from __future__ import annotations

from collections.abc import Iterator

import next_symbol
import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.music import PianoRolls
from litgan.noise import torch_generator


def independent_steps(data: PianoRolls, count: int, seed: int) -> Tensor:
    """Each step of each track takes what that track plays at some step of some training roll.

    These are draws from each track's histogram of pitches, rests and chords, one independent of the other.
    """
    rolls = data.load("train")[0]
    tracks, steps, pitches = rolls.shape[1:]
    columns = rolls.transpose(0, 1).reshape(tracks, -1, pitches)
    generator = torch_generator("independent steps", seed)
    places = torch.randint(columns.shape[1], (count, tracks, steps), generator=generator)
    return data.encode(columns[torch.arange(tracks)[:, None], places])


def to_symbols(rolls: Tensor) -> Tensor:
    """The highest pitch of each track at each step, plus 1; 0 is a rest: int64 [N, steps * tracks].

    All tracks of a step come before the next step. Rolls are [N, tracks, steps, pitches].
    """
    pitches = rolls.shape[3]
    highest = (rolls * torch.arange(1, pitches + 1)).amax(3)
    return highest.transpose(1, 2).flatten(1).long()


def to_rolls(symbols: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Inverse of `to_symbols` where no track has chords: uint8 [N, tracks, steps, pitches]."""
    tracks, steps, pitches = shape
    chosen = F.one_hot(symbols, pitches + 1)[..., 1:]
    return chosen.view(-1, steps, tracks, pitches).transpose(1, 2).to(torch.uint8)


def opponents(data: PianoRolls, count: int, seconds: float, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Names and samples; networks learn for so many seconds."""
    yield "steps drawn independently", independent_steps(data, count, seed)
    symbols = to_symbols(torch.as_tensor(data.load("train")[0]))
    model = next_symbol.fit(symbols, data.pitches + 1, data.tracks, seconds=seconds, seed=seed)
    for temperature in next_symbol.TEMPERATURES:
        made = model.sample(count, symbols.shape[1], temperature, seed)
        yield f"maximum likelihood, temperature {temperature}", data.encode(to_rolls(made, data.sample_shape))
