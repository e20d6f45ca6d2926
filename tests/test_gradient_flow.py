"""The way back of the feedback, against plain autograd on frozen copies and against closed forms."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from shared.gradient_flow import GradientNorms
from torch import nn

from litgan import gradient_flow
from litgan.losses import Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein
from litgan.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
)

NETWORKS: dict[str, Any] = {
    "mlp": (partial(MLPGenerator, (2,)), partial(MLPDiscriminator, (2,))),
    "dcgan": (
        partial(DCGANGenerator, (1, 16, 16), widths=[8, 8]),
        partial(DCGANDiscriminator, (1, 16, 16), widths=[8, 8], spectral_norm=True),
    ),
    "r3gan": (
        partial(R3GANGenerator, (3, 16, 16), widths=[8, 8, 8], cardinalities=[2] * 3, blocks=[1] * 3),
        partial(R3GANDiscriminator, (3, 16, 16), widths=[8, 8, 8], cardinalities=[2] * 3, blocks=[1] * 3),
    ),
}


class TestWayBack(GradientNorms):
    pairs = NETWORKS


def test_the_head_of_a_discriminator_gets_the_slope_of_the_loss() -> None:
    generator, discriminator = MLPGenerator((2,)), MLPDiscriminator((2,))
    seen = gradient_flow.trace_gradients(
        generator, discriminator, NonSaturating(), torch.randn(4, generator.latent_dim)
    )
    *_, head = seen.discriminator.values()
    assert head.item() == pytest.approx(torch.sigmoid(-seen.logits).mean().item(), rel=1e-5)


def test_blocks_leave_out_what_does_not_learn() -> None:
    network = nn.Sequential(
        nn.Linear(2, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 1)
    )
    network[3].requires_grad_(False)
    assert list(gradient_flow.layers(network)) == ["0", "2"]

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(2, 4)
            self.body = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.last = nn.ModuleDict({"a": nn.Linear(4, 1)})

    assert list(gradient_flow.layers(Nested())) == ["stem", "body.0", "body.1", "last"]


def test_a_frozen_generator_is_seen_through() -> None:
    generator, discriminator = MLPGenerator((2,)), MLPDiscriminator((2,))
    latents = torch.randn(4, generator.latent_dim)
    whole = gradient_flow.trace_gradients(generator, discriminator, NonSaturating(), latents)
    generator.requires_grad_(False)
    frozen = gradient_flow.trace_gradients(generator, discriminator, NonSaturating(), latents)
    torch.testing.assert_close(frozen.feedback, whole.feedback)
    torch.testing.assert_close(frozen.generator["latents"], whole.generator["latents"])


# -- steps


def test_steps() -> None:
    network = nn.Linear(2, 2, bias=False)
    network.weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    first = gradient_flow.clone_params(network)
    network.weight.data[0, 0] = 3.5
    second = gradient_flow.clone_params(network)
    assert gradient_flow.update_ratio(first, network).item() == pytest.approx(0.1)
    network.weight.data[0] = torch.tensor([3.2, 0.4])  # 0.3 back, and 0.4 aside
    cosine = gradient_flow.update_cosine(
        gradient_flow.param_update(first, network), gradient_flow.param_update(second, network)
    )
    there, back = torch.tensor([0.2, 0.4]), torch.tensor([-0.3, 0.4])
    assert cosine.item() == pytest.approx((there @ back / there.norm() / back.norm()).item(), rel=1e-5)
    still = gradient_flow.clone_params(network)
    assert (
        gradient_flow.update_cosine(
            gradient_flow.param_update(still, network), gradient_flow.param_update(first, network)
        )
        == 0
    )


def test_gradients_are_compared_with_the_optimizers_eps() -> None:
    weight, silent = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([0.0, 5e-4, -3e-3, 4e-3])
    adam, sgd = torch.optim.Adam([weight, silent], eps=1e-3), torch.optim.SGD([weight])  # sgd: 1e-8
    assert gradient_flow.grad_below_eps(adam).item() == pytest.approx(4 / 6)  # two small, two missing
    assert gradient_flow.grad_over_eps(adam).item() == pytest.approx(math.sqrt((0.25 + 9 + 16) / 6), rel=1e-6)
    assert gradient_flow.grad_below_eps(sgd).item() == pytest.approx(1 / 4)
    rms = math.sqrt((25e-8 + 9e-6 + 16e-6) / 4) / 1e-8
    assert gradient_flow.grad_over_eps(sgd).item() == pytest.approx(rms, rel=1e-6)


# -- logits


def test_logit_statistics() -> None:
    real, fake = torch.tensor([[3.0], [1.0], [-1.0], [2.0]]), torch.tensor([[-2.0], [-1.0], [0.5], [-3.0]])
    told = {key: value.item() for key, value in gradient_flow.logit_statistics(real=real, fake=fake).items()}
    assert told["sign_real"] == 0.5 and told["sign_fake"] == -0.5
    assert told["accuracy"] == 0.75
    assert told["auc"] == pytest.approx(14.5 / 16)  # -1 beats two fakes and draws with one, the rest all
    margins = sorted([5.0, 2.0, -1.5, 5.0])
    for q in (10, 50, 90):
        assert told[f"margin_{q}"] == pytest.approx(torch.tensor(margins).quantile(q / 100).item())


def test_separation_is_the_area_under_the_roc_curve() -> None:
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(50, 3, generator=generator) + 0.5, torch.randn(70, 3, generator=generator)
    scores = torch.cat([real, fake]).mean(1)
    wanted = roc_auc_score([1] * 50 + [0] * 70, scores)
    assert gradient_flow.auc(real=real, fake=fake).item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "slope"),
    [
        (Minimax(), lambda real, fake: torch.sigmoid(fake) / 0.5),
        (NonSaturating(), lambda real, fake: torch.sigmoid(-fake) / 0.5),
        (LeastSquares(), lambda real, fake: (fake - 1).abs()),
        (Relativistic(), lambda real, fake: torch.sigmoid(real - fake) / 0.5),
        (Wasserstein(), lambda real, fake: torch.ones_like(fake)),
    ],
    ids=lambda value: repr(value) if not callable(value) or isinstance(value, nn.Module) else "",
)
def test_derivative_share_of_the_generators_loss(loss: Any, slope: Any) -> None:
    real, fake = torch.tensor([[2.0], [0.5], [4.0]]), torch.tensor([[-6.0], [0.25], [1.5]])
    share = gradient_flow.relative_loss_gradient(loss.generator, real=real, fake=fake, of=["fake"])
    assert share.item() == pytest.approx(slope(real, fake).mean().item(), rel=1e-5)


def test_derivative_share_of_the_discriminators_loss() -> None:
    real, fake = torch.tensor([[2.0], [0.5]]), torch.tensor([[-6.0], [0.25]])
    both = partial(gradient_flow.relative_loss_gradient, real=real, fake=fake, of=["real", "fake"])
    wrong = torch.cat([torch.sigmoid(-real), torch.sigmoid(fake)])
    assert both(NonSaturating().discriminator).item() == pytest.approx(wrong.mean().item() / 0.5, rel=1e-5)
    assert both(Hinge().discriminator).item() == pytest.approx(0.5)  # satisfied with 2 and -6
    assert both(Wasserstein().discriminator).item() == 1


def test_cosine_and_norm_are_taken_sample_by_sample() -> None:
    one = torch.tensor([[[3.0, 4.0]], [[1.0, 0.0]], [[0.0, 0.0]]])
    other = torch.tensor([[[6.0, 8.0]], [[0.0, 2.0]], [[1.0, 0.0]]])
    assert gradient_flow.mean_norm(one).item() == pytest.approx((5 + 1 + 0) / 3)
    assert gradient_flow.mean_cosine(one, other).item() == pytest.approx(1 / 3)
