"""The networks of music fulfill the contract of all networks."""

from functools import partial

import torch
from contract import COMPILED, Case, Contract

from litgan.music import (
    CausalRollDiscriminator,
    GivenTracks,
    PianoRollDiscriminator,
    PianoRollGenerator,
    RecurrentRollGenerator,
)

SHAPE = (3, 16, 20)
BARS = {(1, 16, 48): {"bars": 1}, (4, 64, 12): {"bars": 4}}


def rolls(*shape):
    return (torch.rand(*shape) < 0.3).float()


def lines(*shape):
    """One note or a rest in each track."""
    return torch.nn.functional.one_hot(torch.randint(shape[-1] + 1, shape[:-1]))[..., : shape[-1]].float()


def generator(voices):
    build = partial(
        PianoRollGenerator, shared_dim=6, private_dim=4, widths=(12, 8), private_width=8, voices=voices
    )
    return Case(build, SHAPE, BARS)


def discriminator(spectral=0):
    build = partial(PianoRollDiscriminator, private_width=8, widths=(12, 16), spectral_norm=spectral > 0)
    return Case(
        build,
        SHAPE,
        {(1, 16, 48): {}, (4, 64, 12): {}},
        rolls,
        spectral=spectral,
        exempt=COMPILED if spectral else {},
    )


def recurrent():
    return Case(partial(RecurrentRollGenerator, latent_dim=4, width=16, track_width=8), SHAPE, BARS)


def for_given():
    build = partial(RecurrentRollGenerator, given=1, latent_dim=4, width=16, track_width=8)
    return Case(build, SHAPE, {(2, 8, 12): {}}, image=lambda shape: shape)


def causal():
    build = partial(CausalRollDiscriminator, width=12, track_width=8, dilations=(1, 2))
    return Case(build, SHAPE, BARS, lines)


class TestContract(Contract):
    generators = {voices: generator(voices) for voices in ("polyphonic", "monophonic")}
    generators |= {"recurrent": recurrent(), "for given": for_given()}
    discriminators = {"plain": discriminator(), "spectral": discriminator(6), "causal": causal()}
    refusals = [
        (lambda: PianoRollGenerator((2,)), r"needs piano rolls \[tracks, steps, pitches\]"),
        (lambda: PianoRollGenerator(SHAPE, bars=3), "halves the 16 steps of 3 bars once per entry of widths"),
        (lambda: PianoRollDiscriminator(SHAPE, widths=[8] * 5), "halves the 16 steps of 1 bars .* 5 times"),
        (lambda: PianoRollGenerator(SHAPE, widths=(16, 0)), r"widths \[16, 0\]"),
        (lambda: PianoRollGenerator(SHAPE, voices="loud"), "no voices 'loud'"),
        (lambda: RecurrentRollGenerator(SHAPE, bars=3), "halves the 16 steps of 3 bars"),
        (lambda: RecurrentRollGenerator(SHAPE, 3, given=1), "the condition is 3: choose data.function Given"),
        (lambda: RecurrentRollGenerator(SHAPE, SHAPE), r"of 0 of their 3 tracks, but the condition is \(3,"),
        (lambda: CausalRollDiscriminator(SHAPE, dilations=(1, 0)), r"\[128, 96, 3, 1, 0\]"),
        (lambda: GivenTracks(0), "keeps 0 tracks"),
    ]
