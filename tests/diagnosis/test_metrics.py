"""What diagnosis computes of logits, gradients and updates, against closed forms."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn

from litgan.diagnosis.metrics import (
    grad_over_eps,
    mean_distance,
    overfitting,
    relative_loss_gradient,
    update_cosine,
)
from litgan.losses import Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein


@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        (Minimax(), lambda real, fake: torch.sigmoid(fake) / 0.5),
        (NonSaturating(), lambda real, fake: torch.sigmoid(-fake) / 0.5),
        (LeastSquares(), lambda real, fake: (fake - 1).abs()),
        (Relativistic(), lambda real, fake: torch.sigmoid(real - fake) / 0.5),
        (Wasserstein(), lambda real, fake: torch.ones_like(fake)),
    ],
    ids=lambda value: repr(value) if isinstance(value, nn.Module) else "",
)
def test_relative_gradient_of_the_generators_loss(loss, slope):
    real, fake = torch.tensor([[2.0], [0.5], [4.0]]), torch.tensor([[-6.0], [0.25], [1.5]])
    found = relative_loss_gradient(loss.generator, real=real, fake=fake, of=["fake"])
    assert found.item() == pytest.approx(slope(real, fake).mean().item(), rel=1e-5)


def test_relative_gradient_of_the_discriminators_loss():
    real, fake = torch.tensor([[2.0], [0.5]]), torch.tensor([[-6.0], [0.25]])
    both = partial(relative_loss_gradient, real=real, fake=fake, of=["real", "fake"])
    wrong = torch.cat([torch.sigmoid(-real), torch.sigmoid(fake)])
    assert both(NonSaturating().discriminator).item() == pytest.approx(wrong.mean().item() / 0.5, rel=1e-5)
    assert both(Hinge().discriminator).item() == pytest.approx(0.5)  # no gradient at 2 and -6
    assert both(Wasserstein().discriminator).item() == 1


def test_update_cosine_and_gradients_over_eps():
    one, other = torch.tensor([[0.2, 0.4]]), torch.tensor([[-0.3, 0.4]])
    expected = (0.2 * -0.3 + 0.4 * 0.4) / (one.norm() * other.norm()).item()
    assert update_cosine([one], [other]).item() == pytest.approx(expected, rel=1e-5)
    assert update_cosine([one], [torch.zeros(1, 2)]) == 0

    weight, silent = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([0.0, 5e-4, -3e-3, 4e-3])
    adam, sgd = torch.optim.Adam([weight, silent], eps=1e-3), torch.optim.SGD([weight])  # sgd: 1e-8
    assert grad_over_eps(adam).item() == pytest.approx(math.sqrt((0.25 + 9 + 16) / 6), rel=1e-6)
    rms = math.sqrt((25e-8 + 9e-6 + 16e-6) / 4) / 1e-8
    assert grad_over_eps(sgd).item() == pytest.approx(rms, rel=1e-6)


def test_overfitting_and_mean_distance():
    train, held_out = torch.tensor([[3.0], [5.0]]), torch.tensor([[1.0], [2.0], [3.0]])
    values = overfitting(train=train, held_out=held_out, fake=torch.zeros(4, 1))
    assert values["overfitting"].item() == pytest.approx((4 - 2) / (4 - 0))
    assert values["overfitting_sigmas"].item() == pytest.approx(2 / math.sqrt(1 / 2 + (2 / 3) / 3))
    beaten = overfitting(train=train, held_out=held_out, fake=torch.full((4, 1), 9.0))
    assert 0 < beaten["overfitting"].item() < math.inf, "also where fakes score better than reals"

    assert mean_distance(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])).item() == pytest.approx(10 / 3)
    assert mean_distance(torch.zeros(1, 2)) == 0
