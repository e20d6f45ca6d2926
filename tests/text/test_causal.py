from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from litgan.losses import NonSaturating
from litgan.penalties import R1, Context
from litgan.text import CausalTextDiscriminator, RecurrentTextGenerator

SHAPE = (5, 8)
SMALL: dict[str, Any] = {"width": 12, "kernel": 3, "dilations": (1, 2)}


def make(**options: Any) -> CausalTextDiscriminator:
    """With nonzero biases, on which alone the scores of the first character depend."""
    torch.manual_seed(0)
    discriminator = CausalTextDiscriminator(SHAPE, **(SMALL | options)).double()
    for bias in (weight for weight in discriminator.parameters() if weight.ndim == 1):
        torch.nn.init.normal_(bias)
    return discriminator


def one_hot_text(count: int) -> Tensor:
    """One-hot texts, float64 [count, *SHAPE]."""
    drawn = torch.randint(5, (count, 8), generator=torch.Generator().manual_seed(1))
    return F.one_hot(drawn, 5).transpose(1, 2).double()


@pytest.mark.parametrize("position", range(8))
def test_a_character_affects_logits_from_its_own_position_on(position: int) -> None:
    discriminator, texts = make(), one_hot_text(40)
    changed = texts.clone()
    changed[:, :, position] = texts[:, :, position].roll(1, 1)  # another character
    with torch.no_grad():
        differs = (discriminator(texts) != discriminator(changed)).any(0)
    assert differs.tolist() == [later >= position for later in range(8)]


@pytest.mark.parametrize("position", [0, 5])
def test_the_gradient_is_the_logit_of_every_alternative_character(position: int) -> None:
    """dD_t/dx_t, an array over the alphabet, is what D_t would be with each character at t."""
    discriminator, texts = make(), one_hot_text(6).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(texts)[:, position].sum(), texts)
    for char in range(5):
        other = texts.detach().clone()
        other[:, :, position] = F.one_hot(torch.tensor(char), 5).double()
        torch.testing.assert_close(discriminator(other)[:, position], gradient[:, char, position])


def test_the_receptive_field() -> None:
    """2 (kernel - 1) sum(dilations) + 1 characters: with kernel 2 and one dilation, 3."""
    discriminator = make(kernel=2, dilations=(1,))
    texts = one_hot_text(40)
    changed = texts.clone()
    changed[:, :, 1] = texts[:, :, 1].roll(1, 1)
    with torch.no_grad():
        differs = (discriminator(texts) != discriminator(changed)).any(0)
    assert differs.tolist() == [False, True, True, True, True, False, False, False]


def test_r1_of_a_discriminator_that_ignores_the_prefix() -> None:
    """With maps of zero the scores are the bias b: D_t = b[x_t], and ||grad mean_t D_t||^2 = |b|^2 / T."""
    discriminator, texts = make(), one_hot_text(3).requires_grad_()
    with torch.no_grad():
        discriminator.head.weight.zero_()
        discriminator.head.bias.copy_(torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]))
    logits = discriminator(texts)
    value = R1()(Context(None, discriminator, real=texts, real_logits=logits))
    torch.testing.assert_close(value, torch.full((3,), 14.25 / 8, dtype=torch.float64))


def test_the_gradient_shifts_the_generator_to_characters_with_higher_scores() -> None:
    """With fixed scores, training raises the share of the best character and lowers that of the worst."""
    generator = RecurrentTextGenerator(SHAPE, latent_dim=3, width=16)
    discriminator = make().float()
    with torch.no_grad():
        discriminator.head.weight.zero_()
        discriminator.head.bias.copy_(torch.tensor([4.0, 0.0, 0.0, 0.0, -4.0]))
    adam = torch.optim.Adam(generator.parameters(), lr=1e-2)
    latents = torch.randn(256, generator.latent_dim, generator=torch.Generator().manual_seed(0))
    before = generator(latents).mean((0, 2))
    for _ in range(20):
        adam.zero_grad()
        NonSaturating().generator(fake=discriminator(generator(latents))).mean().backward()
        adam.step()
    after = generator(latents).mean((0, 2))
    assert after[0] > before[0] + 0.2 and after[4] < before[4] / 2
