from __future__ import annotations

import pytest
import torch

from litgan.music import PianoRollDiscriminator, PianoRollGenerator
from litgan.music.networks import binarize

SHAPE = (3, 16, 20)
SMALL = {"shared_dim": 6, "private_dim": 4, "widths": (12, 8), "private_width": 8}


@pytest.mark.parametrize("voices", ["polyphonic", "monophonic"])
def test_notes_are_0_or_1(voices):
    generator = PianoRollGenerator(SHAPE, voices=voices, **SMALL)
    assert generator.latent_dim == 2 * 6 + 2 * 4 * 3
    fake = generator(torch.randn(9, generator.latent_dim))
    assert set(fake.unique().tolist()) == {0.0, 1.0}, "exactly"
    assert voices == "polyphonic" or fake.sum(3).max() == 1


def test_binarize_has_the_gradient_of_the_soft_output():
    torch.manual_seed(0)
    logits, pull = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    hard = binarize(logits, "polyphonic")
    assert torch.equal(hard, (logits > 0).float())
    (given,) = torch.autograd.grad((hard * pull).sum(), logits)
    (expected,) = torch.autograd.grad((logits.sigmoid() * pull).sum(), logits)
    torch.testing.assert_close(given, expected)
    hard = binarize(logits, "monophonic")
    chosen = logits.argmax(1)
    assert torch.equal(hard.argmax(1)[chosen < 6], chosen[chosen < 6]) and hard.shape == (5, 6)
    assert hard.sum(1).tolist() == (chosen < 6).float().tolist(), "the last is the rest"
    (given,) = torch.autograd.grad((hard * pull[:, :6]).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(1)[:, :6] * pull[:, :6]).sum(), logits)
    torch.testing.assert_close(given, expected)


def changed(generator, part):
    """Which [track, bar] of the logits differ when a part of the latents does, float64."""
    seen = []
    generator.levels[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    latents = torch.randn(1, generator.latent_dim, dtype=torch.float64)
    generator(latents)
    latents[:, part] += 1
    generator(latents)
    difference = (seen[0] - seen[1]).abs().view(generator.tracks, -1, generator.bars, 8)
    return difference.amax((1, 3)) > 1e-9


def test_shared_latents_change_all_tracks_and_private_ones_only_their_own():
    torch.manual_seed(0)
    generator = PianoRollGenerator(SHAPE, **SMALL).double()
    for part in (slice(0, 6), slice(6, 12)):
        assert changed(generator, part).all()
    for track in range(3):
        for start in (12 + 4 * track, 24 + 4 * track):
            expected = torch.zeros(3, 2, dtype=torch.bool)
            expected[track] = True
            assert torch.equal(changed(generator, slice(start, start + 4)), expected)


def test_the_chroma_stream_ignores_octaves():
    torch.manual_seed(0)
    discriminator = PianoRollDiscriminator((1, 16, 40), widths=(8, 8))
    torch.nn.init.zeros_(discriminator.private.weight)  # nothing but the chroma is left
    rolls = torch.zeros(3, 1, 16, 40)
    rolls[0, 0, 3, 5] = rolls[1, 0, 3, 29] = rolls[2, 0, 3, 6] = 1
    one, octave, semitone = discriminator(rolls)
    torch.testing.assert_close(one, octave)
    assert not torch.allclose(one, semitone)
