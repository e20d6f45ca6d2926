"""What a GAN of music has to beat: a model without a network, fitted to the same training split.

It is a function of (data, count, seed) that gives samples [count, *sample_shape] as the discriminator sees
them.
"""

from __future__ import annotations

import torch
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


OPPONENT = independent_steps
