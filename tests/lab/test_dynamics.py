"""The dynamics against the closed forms of Mescheder et al. 2018."""

from __future__ import annotations

import math

import pytest
import torch

from litgan.lab.dynamics import Game, dirac_gan, network_game, rotation_share
from litgan.losses import Minimax, NonSaturating, Wasserstein
from litgan.networks import MLPDiscriminator, MLPGenerator

ORIGIN = torch.zeros(2, dtype=torch.float64)
SLOPE = {NonSaturating: 0.5, Minimax: 0.5, Wasserstein: 1.0}  # |f'(0)|


def sorted_by_phase(values):
    return torch.stack(sorted(values, key=lambda value: (value.imag.item(), value.real.item())))


def assert_eigenvalues(found, expected):
    wanted = torch.tensor(expected, dtype=torch.complex128)
    torch.testing.assert_close(sorted_by_phase(found), sorted_by_phase(wanted), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", SLOPE)
def test_without_a_penalty_the_dirac_gan_rotates(loss):
    """Lemma 2.3."""
    found = dirac_gan(loss()).eigenvalues(ORIGIN)
    assert_eigenvalues(found, [1j * SLOPE[loss], -1j * SLOPE[loss]])


@pytest.mark.parametrize("loss", SLOPE)
@pytest.mark.parametrize("gamma", [0.1, 0.7, 3.0])
def test_r1_moves_the_eigenvalues_to_the_left(loss, gamma):
    """Lemma 3.3."""
    root = complex(gamma**2 / 4 - SLOPE[loss] ** 2) ** 0.5
    found = dirac_gan(loss(), gamma).eigenvalues(ORIGIN)
    assert_eigenvalues(found, [-gamma / 2 + root, -gamma / 2 - root])
    assert (found.real < 0).all()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_simultaneous_updates_converge_from_the_predicted_weight_on(rate):
    """|1 + h lambda|^2 = 1 - h gamma + h^2 f'(0)^2 < 1 for gamma > h f'(0)^2."""
    edge = rate * 0.25
    for gamma, inside in ((0.0, False), (0.9 * edge, False), (1.1 * edge, True)):
        game = dirac_gan(NonSaturating(), gamma)
        assert bool((game.multipliers(ORIGIN, rate).abs() < 1).all()) == inside
        ends = game.trajectory(torch.tensor([0.01, 0.0], dtype=torch.float64), rate, 600).norm(dim=1)
        assert bool(ends[-100:].max() < ends[:100].max()) == inside


def test_alternating_updates_stay_on_the_circle():
    """Lemma 2.4: without a penalty all multipliers have modulus 1, where simultaneous ones have more."""
    game = dirac_gan(NonSaturating())
    torch.testing.assert_close(
        game.multipliers(ORIGIN, 0.3, "alternating").abs(), torch.ones(2, dtype=torch.float64)
    )
    torch.testing.assert_close(
        game.multipliers(ORIGIN, 0.3).abs(), torch.full((2,), math.sqrt(1 + 0.0225), dtype=torch.float64)
    )


def test_an_update_is_that_of_torchs_own_descent():
    torch.manual_seed(0)
    generator = MLPGenerator((2,), latent_dim=2, widths=(4,))
    discriminator = MLPDiscriminator((2,), widths=(4,), activation="silu")
    latents, real, loss = torch.randn(8, 2), torch.randn(8, 2), NonSaturating()
    game, point = network_game(generator, discriminator, loss, latents=latents, real=real, gamma=0.3)
    after = game.update(point, 0.1, "alternating")
    networks = (generator, discriminator)
    of_generator, of_discriminator = (torch.optim.SGD(network.parameters(), lr=0.1) for network in networks)
    samples = real.clone().requires_grad_()
    logits = discriminator(samples)
    (slope,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)
    value = loss.discriminator(real=logits, fake=discriminator(generator(latents).detach())).mean()
    (value + 0.15 * slope.square().sum(1).mean()).backward()
    of_discriminator.step()
    of_generator.zero_grad()
    loss.generator(real=discriminator(real), fake=discriminator(generator(latents))).mean().backward()
    of_generator.step()
    weights = torch.cat([weight.detach().flatten() for one in networks for weight in one.parameters()])
    torch.testing.assert_close(after, weights)
    assert len(game.eigenvalues(point)) == len(point)


def test_rotation_of_a_circle_a_line_and_a_swing():
    angle = torch.arange(9.0) * 0.3
    circle = torch.stack([angle.cos(), angle.sin()], 1)
    torch.testing.assert_close(rotation_share(circle.diff(dim=0)), torch.full((7,), math.sin(0.3)))
    line = torch.arange(5.0)[:, None] * torch.tensor([1.0, 2.0])
    torch.testing.assert_close(rotation_share(line.diff(dim=0)), torch.zeros(3), atol=1e-3, rtol=0)
    swing = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]])
    torch.testing.assert_close(rotation_share(swing), torch.zeros(2), atol=1e-3, rtol=0)


def test_another_update_is_refused():
    with pytest.raises(ValueError, match="give simultaneous or alternating"):
        Game(lambda theta, psi: (theta.sum(), psi.sum()), 1).update(ORIGIN, 0.1, "random")
