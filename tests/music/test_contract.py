"""The networks of music fulfill the contract of all networks."""

from functools import partial

import torch
from contract import COMPILED, Case, Contract

from litgan.music import GivenTracks, HarmonyGenerator, PianoRollDiscriminator, PianoRollGenerator

SHAPE = (3, 16, 20)
BARS = {(1, 16, 48): {"bars": 1}, (4, 64, 12): {"bars": 4}}


def rolls(*shape):
    return (torch.rand(*shape) < 0.3).float()


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


def harmony():
    build = partial(HarmonyGenerator, latent_dim=4, widths=(12, 16, 20))
    return Case(build, SHAPE, {(2, 9, 12): {}}, image=lambda shape: shape)


class TestContract(Contract):
    generators = {voices: generator(voices) for voices in ("polyphonic", "monophonic")}
    generators["harmony"] = harmony()
    discriminators = {"plain": discriminator(), "spectral": discriminator(6)}
    refusals = [
        (lambda: PianoRollGenerator((2,)), r"needs piano rolls \[tracks, steps, pitches\]"),
        (lambda: PianoRollGenerator(SHAPE, bars=3), "halves the 16 steps of 3 bars once per entry of widths"),
        (lambda: PianoRollDiscriminator(SHAPE, widths=[8] * 5), "halves the 16 steps of 1 bars .* 5 times"),
        (lambda: PianoRollGenerator(SHAPE, widths=(16, 0)), r"widths \[16, 0\]"),
        (lambda: PianoRollGenerator(SHAPE, voices="loud"), "no voices 'loud'"),
        (lambda: HarmonyGenerator(SHAPE, 3), "the condition is 3: choose data.function GivenTracks"),
        (lambda: HarmonyGenerator(SHAPE, SHAPE, given=3), "makes rolls of 3 of their tracks"),
        (lambda: HarmonyGenerator(SHAPE, SHAPE, widths=(8, 0)), r"widths \[8, 0\]"),
        (lambda: GivenTracks(0), "keeps 0 tracks"),
    ]
