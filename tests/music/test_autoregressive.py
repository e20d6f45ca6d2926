from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from shared.likelihood import check_one_sample
from torch import Tensor

from litgan.music import CausalRollDiscriminator, RecurrentRollGenerator
from litgan.music.autoregressive import at_temperature, with_rests
from litgan.noise import gumbel

SHAPE = (3, 8, 5)


def rolls(count: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """One note or a rest in each track at each step, float64 [count, *shape]."""
    tracks, steps, pitches = shape
    drawn = torch.randint(pitches + 1, (count, tracks, steps), generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.one_hot(drawn, pitches + 1)[..., :-1].double()


def discriminator(**options: Any) -> CausalRollDiscriminator:
    """With nonzero biases, on which alone the scores of the first note depend."""
    torch.manual_seed(0)
    made = CausalRollDiscriminator(SHAPE, **{"width": 12, "track_width": 8, "dilations": (1, 2), **options})
    for bias in (weight for weight in made.parameters() if weight.ndim == 1):
        torch.nn.init.normal_(bias)
    return made.double()


def changed(samples: Tensor, track: int, step: int) -> Tensor:
    other = samples.clone()
    notes = with_rests(samples)[:, track, step].roll(1, 1)
    other[:, track, step] = notes[:, :-1]
    return other


@pytest.mark.parametrize(("track", "step"), [(0, 0), (1, 3), (2, 7)])
def test_a_note_affects_its_own_logit_and_those_after(track: int, step: int) -> None:
    samples = rolls(40)
    with torch.no_grad():
        made = discriminator()
        differs = (made(samples) != made(changed(samples, track, step))).any(0).view(3, 8)
    later = torch.arange(8) > step
    expected = later.repeat(3, 1)
    expected[track:, step] = True
    assert torch.equal(differs, expected)


def test_the_gradient_holds_the_logit_of_every_alternative() -> None:
    """Up to that of a rest, whose number is one minus the sum of the others."""
    made, samples = discriminator(), rolls(6).requires_grad_()
    logits = made(samples).unflatten(1, (3, 8))[:, 1, 4]
    (gradient,) = torch.autograd.grad(logits.sum(), samples)

    def logit(pitch: int | None) -> Tensor:
        other = samples.detach().clone()
        other[:, 1, 4] = 0
        if pitch is not None:
            other[:, 1, 4, pitch] = 1
        return made(other).unflatten(1, (3, 8))[:, 1, 4]

    for pitch in range(5):
        torch.testing.assert_close(logit(pitch) - logit(None), gradient[:, 1, 4, pitch])


def test_likelihoods_are_those_of_the_samples() -> None:
    """Of all rolls they add up to one, and a roll is as frequent as it is likely."""
    torch.manual_seed(0)
    generator = RecurrentRollGenerator((2, 2, 2), 2, bars=1, latent_dim=2, width=8, track_width=8)
    notes = torch.tensor(list(product(range(3), repeat=4))).view(-1, 2, 2)
    every = torch.nn.functional.one_hot(notes, 3)[..., :-1].float()
    latents, count = torch.randn(1, generator.latent_dim), 20_000
    labels = torch.ones(count, dtype=torch.int64)
    with torch.no_grad():
        likely = generator.log_likelihood(every, latents.expand(81, -1), labels[:81]).mul(4).exp()
        others = torch.randn(count, generator.latent_dim)
        others[:, :2] = latents[:, :2]  # the same code
        drawn = with_rests(generator(others, labels)).argmax(-1).flatten(1) @ torch.tensor([27, 9, 3, 1])
    assert likely.sum().item() == pytest.approx(1, rel=1e-5)
    frequent = drawn.bincount(minlength=81) / count
    assert ((frequent - likely).abs() < 5 * (likely / count).sqrt() + 1e-4).all()


def test_it_learns_by_maximum_likelihood() -> None:
    torch.manual_seed(0)
    generator = RecurrentRollGenerator(SHAPE, bars=2, latent_dim=4, width=32, track_width=16)
    check_one_sample(generator, rolls(1)[0].float(), symbols=2)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_gradient_of_a_note_is_that_of_the_softmax_of_its_own_scores(temperature: float) -> None:
    """Where there is a gradient and where there is none, notes are the same."""
    torch.manual_seed(0)
    generator = RecurrentRollGenerator(
        SHAPE, bars=2, latent_dim=4, width=16, track_width=8, sampling_temperature=temperature
    ).double()
    latents = torch.randn(8, generator.latent_dim, dtype=torch.float64, requires_grad=True)
    fake, pull = generator(latents), torch.randn(8, 3, 8, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(fake, generator(latents))
    assert fake.detach().round(decimals=9).unique().tolist() == [0.0, 1.0] and fake.sum(3).max() < 1 + 1e-9
    (found,) = torch.autograd.grad((fake * pull)[:, 1, 4].sum(), latents)
    noise = latents[:, 4:].unflatten(1, (8, 3, 6)).transpose(1, 2)
    state, inputs, _ = generator.start(latents, None)
    scores = at_temperature(generator.scores(state, inputs, with_rests(fake.detach())), temperature)
    soft = (scores + gumbel(noise)).softmax(-1)[..., :-1]
    (expected,) = torch.autograd.grad((soft * pull)[:, 1, 4].sum(), latents)
    torch.testing.assert_close(found, expected)
    of_noise = found[:, 4:].unflatten(1, (8, 3, 6))
    assert of_noise[:, 4, 1].abs().sum() > 0
    of_noise[:, 4, 1] = 0
    assert not of_noise.any(), "nothing goes through the notes before"


def test_a_temperature_is_that_of_notes_and_not_of_rests() -> None:
    scores = torch.randn(5, 3, 6, dtype=torch.float64)
    warm, cold = scores.softmax(-1), at_temperature(scores, 0.5).softmax(-1)
    torch.testing.assert_close(cold[..., -1], warm[..., -1])
    squares = warm[..., :-1].square()
    played = warm[..., :-1].sum(-1, keepdim=True)
    torch.testing.assert_close(cold[..., :-1], played * squares / squares.sum(-1, keepdim=True))


def test_the_likelihood_has_no_temperature() -> None:
    latents, samples, found = torch.randn(16, 4 + 8 * 3 * 6), rolls(16).float(), []
    for temperature in (0.5, 1.0):
        torch.manual_seed(0)
        generator = RecurrentRollGenerator(
            SHAPE, bars=2, latent_dim=4, width=16, track_width=8, sampling_temperature=temperature
        )
        found.append(generator.log_likelihood(samples, latents))
    assert torch.equal(*found)


def test_a_sampling_temperature_is_positive() -> None:
    with pytest.raises(ValueError, match="sampling_temperature is 0"):
        RecurrentRollGenerator(SHAPE, sampling_temperature=0)


@pytest.mark.parametrize("steps", [8, 11, 24])
def test_given_tracks_stay_and_others_have_one_note_or_rest_at_any_length(steps: int) -> None:
    condition = torch.zeros(4, 3, steps, 5)
    condition[:, :2] = (torch.rand(4, 2, steps, 5) < 0.3).float()  # chords as well
    generator = RecurrentRollGenerator(SHAPE, SHAPE, given=2, latent_dim=4, width=16, track_width=8)
    made = generator(torch.randn(4, generator.latent_dim), condition).detach()
    assert made.shape == condition.shape and torch.equal(made[:, :2], condition[:, :2])
    assert made[:, 2].round(decimals=5).sum(2).unique().tolist() == [0.0, 1.0]


def test_what_is_not_given_is_not_read_and_what_comes_later_is() -> None:
    generator = RecurrentRollGenerator(SHAPE, SHAPE, given=1, latent_dim=4, width=16, track_width=8)
    condition = torch.zeros(3, *SHAPE)
    condition[1, 1:, :, 3] = 1
    condition[2, 0, 4, 2] = 1
    _, inputs, _ = generator.start(torch.randn(1, generator.latent_dim).expand(3, -1), condition)
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.allclose(inputs[0, 1], inputs[2, 1])
