from __future__ import annotations

import pytest
import torch

from litgan.networks import PianoRollDiscriminator, PianoRollGenerator
from litgan.networks.pianoroll import binarise

SHAPE = (3, 16, 20)
SMALL = {"shared_dim": 6, "private_dim": 4, "widths": (12, 8), "private_width": 8}


def labels(count, classes):
    return torch.arange(count) % classes if classes else None


@pytest.mark.parametrize("classes", [0, 4])
@pytest.mark.parametrize("voices", ["polyphonic", "monophonic"])
@pytest.mark.parametrize(("shape", "bars"), [(SHAPE, 2), ((1, 16, 48), 1), ((4, 64, 12), 4)])
def test_shapes_and_every_parameter_learns(shape, bars, voices, classes):
    torch.manual_seed(0)
    generator = PianoRollGenerator(shape, classes, bars=bars, voices=voices, **SMALL)
    discriminator = PianoRollDiscriminator(shape, classes, private_width=8, widths=(12, 16))
    fake = generator(torch.randn(9, generator.latent_dim), labels(9, classes))
    assert generator.latent_dim == 2 * 6 + 2 * 4 * shape[0]
    assert fake.shape == (9, *shape) and set(fake.unique().tolist()) == {0.0, 1.0}, "exactly"
    if voices == "monophonic":
        assert fake.sum(3).max() == 1
    logits = discriminator(fake, labels(9, classes))
    assert logits.shape == (9, 1)
    logits.square().sum().backward()
    for network in (generator, discriminator):
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
        assert network.mixes_samples is False


def test_what_is_binarised_has_the_gradient_of_what_is_not():
    torch.manual_seed(0)
    logits, pull = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    hard = binarise(logits, "polyphonic")
    assert torch.equal(hard, (logits > 0).float())
    (given,) = torch.autograd.grad((hard * pull).sum(), logits)
    (expected,) = torch.autograd.grad((logits.sigmoid() * pull).sum(), logits)
    torch.testing.assert_close(given, expected)
    hard = binarise(logits, "monophonic")
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


def test_shared_latents_reach_all_tracks_and_private_ones_their_own():
    torch.manual_seed(0)
    generator = PianoRollGenerator(SHAPE, **SMALL).double()
    for part in (slice(0, 6), slice(6, 12)):
        assert changed(generator, part).all()
    for track in range(3):
        for start in (12 + 4 * track, 24 + 4 * track):
            expected = torch.zeros(3, 2, dtype=torch.bool)
            expected[track] = True
            assert torch.equal(changed(generator, slice(start, start + 4)), expected)


def test_a_sample_does_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    generator, discriminator = (
        PianoRollGenerator(SHAPE, **SMALL),
        PianoRollDiscriminator(SHAPE, widths=(8, 8)),
    )
    latents = torch.randn(7, generator.latent_dim)
    together = generator(latents)
    assert torch.equal(together, torch.cat([generator(row[None]) for row in latents]))
    alone = torch.cat([discriminator(row[None]) for row in together])
    torch.testing.assert_close(discriminator(together), alone)


def test_the_chroma_stream_hears_octaves_as_one():
    torch.manual_seed(0)
    discriminator = PianoRollDiscriminator((1, 16, 40), widths=(8, 8))
    torch.nn.init.zeros_(discriminator.private.weight)  # nothing but the chroma is left
    rolls = torch.zeros(3, 1, 16, 40)
    rolls[0, 0, 3, 5] = rolls[1, 0, 3, 29] = rolls[2, 0, 3, 6] = 1
    one, octave, semitone = discriminator(rolls)
    torch.testing.assert_close(one, octave)
    assert not torch.allclose(one, semitone)


def test_labels_change_what_a_conditional_network_says():
    torch.manual_seed(0)
    zero, one = torch.zeros(5, dtype=torch.long), torch.ones(5, dtype=torch.long)
    generator, discriminator = PianoRollGenerator(SHAPE, 3), PianoRollDiscriminator(SHAPE, 3)
    for network, given in [
        (generator, torch.randn(5, generator.latent_dim)),
        (discriminator, torch.rand(5, *SHAPE)),
    ]:
        assert not torch.equal(network(given, zero), network(given, one))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: PianoRollGenerator((2,)), r"needs piano rolls \[tracks, steps, pitches\]"),
        (lambda: PianoRollGenerator(SHAPE, bars=3), "halves the 16 steps of 3 bars once per entry of widths"),
        (lambda: PianoRollDiscriminator(SHAPE, widths=[8] * 5), "halves the 16 steps of 1 bars .* 5 times"),
        (lambda: PianoRollGenerator(SHAPE, widths=(16, 0)), r"widths \[16, 0\]"),
        (lambda: PianoRollGenerator(SHAPE, voices="loud"), "no voices 'loud': choose polyphonic or mono"),
        (lambda: PianoRollGenerator(SHAPE, 3)(torch.randn(4, 112)), "pass labels"),
        (lambda: PianoRollGenerator(SHAPE)(torch.randn(4, 3)), "built for inputs"),
        (lambda: PianoRollDiscriminator(SHAPE)(torch.rand(4, 3, 16, 21)), "built for inputs"),
        (lambda: PianoRollDiscriminator(SHAPE, 3)(torch.rand(4, *SHAPE), torch.zeros(4)), "int64"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        build()
    assert "\n" not in str(refused.value)


def test_spectral_norm_bounds_every_layer():
    discriminator = PianoRollDiscriminator(SHAPE, 2, widths=(8, 8), spectral_norm=True)
    assert sum(hasattr(module, "parametrizations") for module in discriminator.modules()) == 6
