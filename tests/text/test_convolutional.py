from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch

from litgan.schedules import Linear
from litgan.text import RecurrentTextGenerator, TextDiscriminator, TextGenerator
from litgan.text.convolutional import gumbel, straight_through

SHAPE = (12, 16)
SMALL = {"latent_dim": 8, "widths": (16, 12, 8)}


@pytest.mark.parametrize("output", ["softmax", "gumbel"])
def test_each_position_has_a_distribution_over_the_alphabet(output):
    generator = TextGenerator(SHAPE, **SMALL, output=output)
    assert generator.latent_dim == (8 if output == "softmax" else 8 + 12 * 16)
    fake = generator(torch.randn(9, generator.latent_dim))
    assert fake.min() >= 0
    torch.testing.assert_close(fake.sum(1), torch.ones(9, 16))


def test_one_hot_samples_follow_the_softmax():
    """The Gumbel-max trick: the largest of logits with Gumbel noise is drawn from their softmax."""
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).view(1, 4, 1).expand(50_000, 4, 1)
    drawn = straight_through(logits + gumbel(torch.randn(50_000, 4, 1)), 0.7)
    assert set(drawn.unique().tolist()) == {0.0, 1.0} and (drawn.sum(1) == 1).all()
    assert (drawn.mean(0) - logits[0].softmax(0)).abs().max() < 4 * 0.5 / math.sqrt(50_000)


def test_gumbel_noise_has_its_moments_and_no_infinity():
    noise = gumbel(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert noise.mean().item() == pytest.approx(0.57722, abs=0.02)  # Euler's constant
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.04)
    numbers = torch.linspace(-13, 8, 1001, requires_grad=True)
    exact = -torch.log(-torch.special.log_ndtr(numbers.double()))
    torch.testing.assert_close(gumbel(numbers), exact.float(), rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(value.sum(), numbers)[0] for value in (gumbel(numbers), exact)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_the_gradient_passes_straight_through_to_the_softmax():
    logits = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 5, 7, dtype=torch.float64)
    for temperature in (0.5, 2.0):
        (hard,) = torch.autograd.grad((straight_through(logits, temperature) * weights).sum(), logits)
        (soft,) = torch.autograd.grad(((logits / temperature).softmax(1) * weights).sum(), logits)
        torch.testing.assert_close(hard, soft)


@pytest.mark.parametrize("kind", [partial(TextGenerator, **SMALL, output="gumbel"), RecurrentTextGenerator])
def test_the_temperature_follows_its_schedule_and_changes_gradients_only(kind):
    generator = kind(SHAPE, temperature=Linear(2.0, 0.5, images=1000))
    latents = torch.randn(4, generator.latent_dim)
    assert generator.temperature == 2.0
    first, gradients = generator(latents), []
    for images_seen in (0, 500, 1000):
        generator.step_schedule(images_seen)
        fake = generator(latents)
        assert torch.equal(fake.round(), first.round())
        gradients.append(torch.autograd.grad(fake[:, 0].sum(), generator.head.bias)[0])
    assert generator.temperature == 0.5
    assert not any(torch.allclose(before, after) for before, after in pairwise(gradients))


def test_the_order_of_characters_matters_to_the_discriminator():
    torch.manual_seed(0)
    for resample in (True, False):
        discriminator = TextDiscriminator(SHAPE, widths=(8, 8), resample=resample)
        samples = torch.randn(4, *SHAPE).softmax(1)
        swapped = samples.unflatten(2, (8, 2)).flip(3).flatten(2)
        assert not torch.allclose(discriminator(samples), discriminator(swapped))


def test_the_signal_keeps_its_size_at_any_depth():
    torch.manual_seed(0)
    for depth in (1, 5):
        generator = TextGenerator(SHAPE, latent_dim=64, widths=(64,) * depth, resample=False)
        maps = generator.base(torch.randn(256, 64)).unflatten(1, (64, 16))
        size = generator.blocks(maps).square().mean() / maps.square().mean()
        assert 0.3 < size < 4


def test_an_untrained_generator_has_different_and_uncertain_samples():
    torch.manual_seed(0)
    samples = TextGenerator(SHAPE, latent_dim=16, widths=(64, 48, 32))(torch.randn(200, 16))
    assert len(samples.argmax(1).unique(dim=0)) == 200
    assert 0.3 < samples.amax(1).mean() < 0.8, "uniform is 0.08; at 1 a softmax passes no gradient"
