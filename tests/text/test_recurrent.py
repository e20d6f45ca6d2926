from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from shared.likelihood import check_one_sample
from torch import nn

from litgan import gradient_flow
from litgan.losses import NonSaturating
from litgan.noise import gumbel
from litgan.schedules import Linear
from litgan.text import CausalTextDiscriminator, RecurrentTextGenerator
from litgan.text.recurrent import straight_through

SHAPE = (5, 8)


SAMPLINGS = ("gumbel", "inverse")


def make(**options: Any) -> RecurrentTextGenerator:
    torch.manual_seed(0)
    return RecurrentTextGenerator(SHAPE, **({"latent_dim": 3, "width": 16} | options))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_samples_are_one_hot(sampling: str) -> None:
    generator = make(sampling=sampling)
    assert generator.latent_dim == 3 + (5 * 8 if sampling == "gumbel" else 8)
    fake = generator(torch.randn(9, generator.latent_dim))
    assert set(fake.round(decimals=6).unique().tolist()) == {0.0, 1.0} and (fake.round().sum(1) == 1).all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_characters_are_sampled_from_the_distribution_of_the_head(sampling: str) -> None:
    generator = make(sampling=sampling)
    nn.init.zeros_(generator.head.weight)
    with torch.no_grad():
        generator.head.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5]))
        drawn = generator(torch.randn(20_000, generator.latent_dim)).mean((0, 2))
    assert (drawn - generator.head.bias.softmax(0)).abs().max() < 4 * 0.5 / math.sqrt(20_000 * 8)


def test_a_character_depends_on_those_before_it_and_on_no_later_noise() -> None:
    generator = make()
    latents = torch.randn(400, generator.latent_dim)
    other = latents.clone()
    other[:, 3:].view(400, *SHAPE)[:, :, 3] = torch.randn(400, 5)
    with torch.no_grad():
        before, after = generator(latents).argmax(1), generator(other).argmax(1)
    assert torch.equal(before[:, :3], after[:, :3])
    changed = before[:, 3] != after[:, 3]
    assert changed.any() and (before[changed, 4:] != after[changed, 4:]).any()
    assert torch.equal(before[~changed], after[~changed]), "the noise acts through the character alone"


def test_the_gradient_of_a_character_reaches_those_before_it() -> None:
    generator = make()
    latents = torch.randn(50, generator.latent_dim, requires_grad=True)
    fake = generator(latents)
    (gradient,) = torch.autograd.grad((fake[:, :, -1] * torch.randn(50, 5)).sum(), latents)
    of_noise = gradient[:, 3:].view(50, *SHAPE).abs().sum((0, 1))
    assert (of_noise > 0).all() and gradient[:, :3].abs().min() > 0


def test_a_block_that_is_called_again_and_again_counts_as_a_whole() -> None:
    torch.manual_seed(0)
    generator = RecurrentTextGenerator((5, 4), latent_dim=3, width=6)
    discriminator = CausalTextDiscriminator((5, 4), width=4, dilations=(1,))
    latents = torch.randn(7, generator.latent_dim)
    norms = gradient_flow.trace_gradients(generator, discriminator, NonSaturating(), latents).generator
    assert list(norms) == ["latents", "initial_state", "cell", "head"]
    norm = norms["cell"]
    states: list[torch.Tensor] = []
    generator.cell.register_forward_hook(lambda _m, _i, state: states.append(state))
    objective = NonSaturating().generator(fake=discriminator(generator(latents))).sum()
    gradients = torch.stack(torch.autograd.grad(objective, states))
    assert len(states) == 4 and all(gradient.any() for gradient in gradients)
    assert norm.item() == pytest.approx(gradients.square().sum((0, 2)).sqrt().mean().item(), rel=1e-5)


def test_one_hot_samples_follow_the_softmax() -> None:
    """The Gumbel-max trick: the largest of logits with Gumbel noise is drawn from their softmax."""
    torch.manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).view(1, 4, 1).expand(50_000, 4, 1)
    drawn = straight_through(logits + gumbel(torch.randn(50_000, 4, 1)), 0.7)
    assert set(drawn.unique().tolist()) == {0.0, 1.0} and (drawn.sum(1) == 1).all()
    assert (drawn.mean(0) - logits[0].softmax(0)).abs().max() < 4 * 0.5 / math.sqrt(50_000)


def test_the_gradient_passes_straight_through_to_the_softmax() -> None:
    logits = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 5, 7, dtype=torch.float64)
    for temperature in (0.5, 2.0):
        (hard,) = torch.autograd.grad((straight_through(logits, temperature) * weights).sum(), logits)
        (soft,) = torch.autograd.grad(((logits / temperature).softmax(1) * weights).sum(), logits)
        torch.testing.assert_close(hard, soft)


def test_the_temperature_follows_its_schedule_and_changes_gradients_only() -> None:
    generator = RecurrentTextGenerator(SHAPE, temperature=Linear(2.0, 0.5, images=1000))
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


def test_the_gradient_of_the_inverse_is_that_of_the_expected_score() -> None:
    """Of sum_a p(a) s(a), for scores s that are linear in the character."""
    generator = make(sampling="inverse")
    logits, scores = torch.randn(2, 6, 5, dtype=torch.float64).unbind()
    logits.requires_grad_()
    drawn = generator.draw(logits, torch.randn(6, 1))
    (found,) = torch.autograd.grad((drawn * scores).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(1) * scores).sum(), logits)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_likelihoods_are_those_of_the_samples(sampling: str) -> None:
    """Of all texts they add up to one, and a text is as frequent as it is likely."""
    torch.manual_seed(0)
    generator = RecurrentTextGenerator((3, 4), 2, latent_dim=2, width=8, sampling=sampling)
    texts = torch.tensor(list(product(range(3), repeat=4)))
    one_hot = nn.functional.one_hot(texts, 3).transpose(1, 2).float()
    latents, count = torch.randn(1, generator.latent_dim), 20_000
    labels = torch.ones(count, dtype=torch.int64)
    with torch.no_grad():
        likely = generator.log_likelihood(one_hot, latents.expand(81, -1), labels[:81]).mul(4).exp()
        others = torch.randn(count, generator.latent_dim)
        others[:, :2] = latents[:, :2]  # the same code
        drawn = generator(others, labels).argmax(1) @ torch.tensor([27, 9, 3, 1])
    assert likely.sum().item() == pytest.approx(1, rel=1e-5)
    frequent = drawn.bincount(minlength=81) / count
    assert ((frequent - likely).abs() < 5 * (likely / count).sqrt() + 1e-4).all()


def test_it_learns_by_maximum_likelihood() -> None:
    text = torch.tensor([0, 1, 2, 3, 4, 3, 2, 1])
    check_one_sample(make(sampling="inverse"), nn.functional.one_hot(text, 5).T.float(), symbols=0)
