from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from litgan.networks import RecurrentTextGenerator, TextDiscriminator
from litgan.schedules import Linear

SHAPE = (5, 8)
SMALL: dict[str, Any] = {"latent_dim": 3, "width": 16}


def make(classes: int = 0, **options: Any) -> RecurrentTextGenerator:
    torch.manual_seed(0)
    return RecurrentTextGenerator(SHAPE, classes, **(SMALL | options))


def labels(count: int, classes: int) -> Tensor | None:
    return torch.arange(count) % classes if classes else None


@pytest.mark.parametrize("classes", [0, 4])
def test_one_letter_a_place_and_every_parameter_learns(classes: int) -> None:
    generator, discriminator = make(classes), TextDiscriminator(SHAPE, classes, widths=(8, 8))
    assert generator.latent_dim == 3 + 5 * 8 and generator.mixes_samples is False
    fake = generator(torch.randn(9, generator.latent_dim), labels(9, classes))
    assert fake.shape == (9, *SHAPE) and set(fake.round(decimals=6).unique().tolist()) == {0.0, 1.0}
    assert torch.equal(fake.argmax(1), fake.round().argmax(1)) and (fake.round().sum(1) == 1).all()
    discriminator(fake, labels(9, classes)).square().sum().backward()
    assert [name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_letters_are_drawn_from_the_distribution_of_the_head() -> None:
    generator = make()
    nn.init.zeros_(generator.head.weight)
    with torch.no_grad():
        generator.head.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5]))
        drawn = generator(torch.randn(20_000, generator.latent_dim)).mean((0, 2))
    assert (drawn - generator.head.bias.softmax(0)).abs().max() < 4 * 0.5 / math.sqrt(20_000 * 8)


def test_a_letter_depends_on_those_before_it_and_on_no_later_noise() -> None:
    generator = make()
    latents = torch.randn(400, generator.latent_dim)
    other = latents.clone()
    other[:, 3:].view(400, *SHAPE)[:, :, 3] = torch.randn(400, 5)
    with torch.no_grad():
        before, after = generator(latents).argmax(1), generator(other).argmax(1)
    assert torch.equal(before[:, :3], after[:, :3])
    changed = before[:, 3] != after[:, 3]
    assert changed.any() and (before[changed, 4:] != after[changed, 4:]).any()
    assert torch.equal(before[~changed], after[~changed]), "the noise matters through the letter alone"


def test_the_feedback_of_a_letter_reaches_those_before_it() -> None:
    generator = make()
    latents = torch.randn(50, generator.latent_dim, requires_grad=True)
    fake = generator(latents)
    (gradient,) = torch.autograd.grad((fake[:, :, -1] * torch.randn(50, 5)).sum(), latents)
    of_noise = gradient[:, 3:].view(50, *SHAPE).abs().sum((0, 1))
    assert (of_noise > 0).all() and gradient[:, :3].abs().min() > 0


def test_the_temperature_follows_the_clock_and_moves_gradients_only() -> None:
    generator = make(temperature=Linear(2.0, 0.5, images=1000))
    latents = torch.randn(4, generator.latent_dim)
    first, gradients = generator(latents), []
    for images_seen in (0, 1000):
        generator.step_schedule(images_seen)
        fake = generator(latents)
        assert torch.equal(fake.round(), first.round())
        gradients.append(torch.autograd.grad(fake[:, 0].sum(), generator.head.bias)[0])
    assert generator.temperature == 0.5 and not torch.allclose(*gradients)


def test_a_sample_is_the_same_whatever_stands_beside_it() -> None:
    generator = make()
    latents = torch.randn(6, generator.latent_dim)
    torch.testing.assert_close(generator(latents)[2:4], generator(latents[2:4]))


def test_the_state_dict_goes_round_and_labels_matter() -> None:
    first, second = RecurrentTextGenerator(SHAPE, 3, **SMALL), RecurrentTextGenerator(SHAPE, 3, **SMALL)
    latents = torch.randn(60, first.latent_dim)
    assert not torch.equal(first(latents, labels(60, 3)).round(), second(latents, labels(60, 3)).round())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    one = first(latents, labels(60, 3)).round()
    assert torch.equal(one, second(latents, labels(60, 3)).round())
    assert not torch.equal(one, first(latents, (torch.arange(60) + 1) % 3).round())


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"needs samples \[alphabet_size, length\], not \[1, 28, 28\]"):
        RecurrentTextGenerator((1, 28, 28))
    with pytest.raises(ValueError, match=r"widths \[0\]: give numbers of at least 1"):
        RecurrentTextGenerator(SHAPE, width=0)
    with pytest.raises(ValueError, match="built for inputs"):
        make()(torch.randn(2, 3))
    with pytest.raises(ValueError, match="pass labels"):
        make(4)(torch.randn(2, 43))
