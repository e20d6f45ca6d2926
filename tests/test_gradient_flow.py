"""Gradient norms by layer, against plain autograd on frozen copies and against closed forms."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from shared.gradient_flow import GradientNorms
from torch import nn

from litgan import gradient_flow
from litgan.losses import NonSaturating
from litgan.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
)

SMALL = {"widths": [8, 8, 8], "cardinalities": [2] * 3, "blocks": [1] * 3}


class TestGradientNorms(GradientNorms):
    pairs = {
        "mlp": (partial(MLPGenerator, (2,)), partial(MLPDiscriminator, (2,))),
        "dcgan": (
            partial(DCGANGenerator, (1, 16, 16), widths=[8, 8]),
            partial(DCGANDiscriminator, (1, 16, 16), widths=[8, 8], spectral_norm=True),
        ),
        "r3gan": (
            partial(R3GANGenerator, (3, 16, 16), **SMALL),
            partial(R3GANDiscriminator, (3, 16, 16), **SMALL),
        ),
    }


def test_the_discriminators_last_layer_gets_the_slope_of_the_loss_also_through_a_frozen_generator():
    generator, discriminator = MLPGenerator((2,)), MLPDiscriminator((2,))
    latents = torch.randn(4, generator.latent_dim)
    trace = gradient_flow.trace_gradients(generator, discriminator, NonSaturating(), latents)
    *_, last = trace.discriminator.values()
    assert last.item() == pytest.approx(torch.sigmoid(-trace.logits).mean().item(), rel=1e-5)
    generator.requires_grad_(False)
    frozen = gradient_flow.trace_gradients(generator, discriminator, NonSaturating(), latents)
    torch.testing.assert_close(frozen.feedback, trace.feedback)
    torch.testing.assert_close(frozen.generator["latents"], trace.generator["latents"])


def test_layers_leave_out_what_is_not_trained():
    network = nn.Sequential(
        nn.Linear(2, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 1)
    )
    network[3].requires_grad_(False)
    assert list(gradient_flow.layers(network)) == ["0", "2"]

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(2, 4)
            self.body = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.last = nn.ModuleDict({"a": nn.Linear(4, 1)})

    assert list(gradient_flow.layers(Nested())) == ["stem", "body.0", "body.1", "last"]


def test_norms_and_cosines_are_taken_sample_by_sample():
    one = torch.tensor([[[3.0, 4.0]], [[1.0, 0.0]], [[0.0, 0.0]]])
    other = torch.tensor([[[6.0, 8.0]], [[0.0, 2.0]], [[1.0, 0.0]]])
    assert gradient_flow.mean_norm(one).item() == pytest.approx((5 + 1 + 0) / 3)
    assert gradient_flow.mean_norm(one, one).item() == pytest.approx(2**0.5 * (5 + 1 + 0) / 3)
    assert gradient_flow.mean_norm(one[:, 0, 0]).item() == pytest.approx(4 / 3)
    assert gradient_flow.mean_norm(torch.empty(3, 0)).item() == 0  # latents of a deterministic generator
    assert gradient_flow.mean_cosine(one, other).item() == pytest.approx(1 / 3)


def test_update_ratio_and_share_of_gradients_below_eps():
    network = nn.Linear(2, 2, bias=False)
    network.weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    before = gradient_flow.clone_params(network)
    network.weight.data[0, 0] = 3.5
    assert gradient_flow.update_ratio(before, network).item() == pytest.approx(0.1)

    weight, silent = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([0.0, 5e-4, -3e-3, 4e-3])
    adam, sgd = torch.optim.Adam([weight, silent], eps=1e-3), torch.optim.SGD([weight])  # sgd: 1e-8
    assert gradient_flow.grad_below_eps(adam).item() == pytest.approx(4 / 6)  # two small, two missing
    assert gradient_flow.grad_below_eps(sgd).item() == pytest.approx(1 / 4)


def test_logit_statistics():
    real, fake = torch.tensor([[3.0], [1.0], [-1.0], [2.0]]), torch.tensor([[-2.0], [-1.0], [0.5], [-3.0]])
    found = {key: value.item() for key, value in gradient_flow.logit_statistics(real=real, fake=fake).items()}
    margins = torch.tensor([5.0, 2.0, -1.5, 5.0])
    assert found == pytest.approx({
        "sign_real": 0.5, "sign_fake": -0.5, "accuracy": 0.75,
        "auc": 14.5 / 16,  # -1 beats two fakes and ties with one, the others beat all
        **{f"margin_{q}": margins.quantile(q / 100).item() for q in (10, 50, 90)},
    })  # fmt: skip


def test_auc():
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(50, 3, generator=generator) + 0.5, torch.randn(70, 3, generator=generator)
    expected = roc_auc_score([1] * 50 + [0] * 70, torch.cat([real, fake]).mean(1))
    assert gradient_flow.auc(real=real, fake=fake).item() == pytest.approx(expected, abs=1e-6)
