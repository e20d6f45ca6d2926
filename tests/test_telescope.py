"""The way back of the feedback, against plain autograd on frozen copies and against closed forms."""

from __future__ import annotations

import math
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from litgan import telescope
from litgan.losses import Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein
from litgan.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
)
from litgan.text import RecurrentTextGenerator, TextDiscriminator
from litgan.zoo import ResNetDiscriminator, ResNetGenerator, StyleGAN2Discriminator, StyleGAN2Generator

NETWORKS: dict[str, Any] = {
    "mlp": (partial(MLPGenerator, (2,)), partial(MLPDiscriminator, (2,))),
    "dcgan": (
        partial(DCGANGenerator, (1, 16, 16), widths=[8, 8]),
        partial(DCGANDiscriminator, (1, 16, 16), widths=[8, 8], spectral_norm=True),
    ),
    "resnet": (
        partial(ResNetGenerator, (3, 16, 16), widths=[8, 8]),
        partial(ResNetDiscriminator, (3, 16, 16), widths=[8, 8]),
    ),
    "r3gan": (
        partial(R3GANGenerator, (3, 16, 16), widths=[8, 8, 8], cardinalities=[2] * 3, blocks=[1] * 3),
        partial(R3GANDiscriminator, (3, 16, 16), widths=[8, 8, 8], cardinalities=[2] * 3, blocks=[1] * 3),
    ),
    "stylegan2": (
        partial(StyleGAN2Generator, (3, 16, 16), widths=[8, 8, 8], noise=False),  # one sample at a time
        partial(StyleGAN2Discriminator, (3, 16, 16), widths=[8, 8, 8], group_size=1),
    ),
}


@pytest.fixture(params=NETWORKS)
def networks(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator, discriminator = (make(3) for make in NETWORKS[request.param])
    return generator.double().train(), discriminator.double().train()


def by_hand(network: nn.Module, names: list[str], run: Any) -> tuple[Any, dict[str, Tensor]]:
    """What a pass gives, and the outputs of these blocks, with a graph of the weights too."""
    kept: dict[str, Tensor] = {}
    modules = dict(network.named_modules())
    for name in names:
        modules[name].register_forward_hook(lambda _m, _i, out, name=name: kept.__setitem__(name, out))
    return run(), kept


@pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=repr)
def test_every_norm_is_that_of_plain_autograd(networks: Any, loss: Any) -> None:
    """One sample at a time, on frozen copies, in the networks' own way."""
    generator, discriminator = networks
    latents, labels = torch.randn(3, generator.latent_dim).double(), torch.arange(3)
    real_logits = torch.randn(3, 1).double() if loss.relativistic else None
    before = deepcopy([generator.state_dict(), discriminator.state_dict()])
    seen = telescope.look(generator, discriminator, loss, latents, labels, real_logits=real_logits)
    found = seen.way_back()

    assert all(part.training for network in networks for part in network.modules())
    assert all(weight.grad is None and weight.requires_grad for weight in generator.parameters())
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
        assert not any(part._forward_hooks for part in network.modules())

    total = dict.fromkeys(found, 0.0)
    for index in range(3):
        made, judge = deepcopy(generator).eval(), deepcopy(discriminator).eval()
        z = latents[index : index + 1].clone().requires_grad_()
        label = labels[index : index + 1]
        fake, of_made = by_hand(made, list(telescope.blocks(made)), lambda: made(z, label))  # noqa: B023
        logit, of_judge = by_hand(judge, list(telescope.blocks(judge)), lambda: judge(fake, label))  # noqa: B023
        real = None if real_logits is None else real_logits[index : index + 1]
        objective = loss.generator(real=real, fake=logit).squeeze()
        points = {"samples": fake, "generator/latents": z}
        points |= {f"generator/{name}": out for name, out in of_made.items()}
        points |= {f"discriminator/{name}": out for name, out in of_judge.items()}
        torch.testing.assert_close(seen.samples[index], fake[0], rtol=1e-6, atol=1e-6)
        for name in found:
            (gradient,) = torch.autograd.grad(objective, points[name], retain_graph=True)
            total[name] += gradient.double().norm().item() / 3
            if name == "samples":
                torch.testing.assert_close(seen.feedback[index], gradient[0], rtol=1e-6, atol=1e-9)
    assert {name: norm.item() for name, norm in found.items()} == {
        name: pytest.approx(norm, rel=1e-6, abs=0) for name, norm in total.items()
    }


def test_rows_lead_from_the_discriminators_head_to_the_latents(networks: Any) -> None:
    latents = torch.randn(2, networks[0].latent_dim).double()
    rows = list(telescope.look(*networks, NonSaturating(), latents, torch.arange(2)).way_back())
    sides = [row.partition("/")[0] for row in rows]
    assert sides == sorted(sides, key=["discriminator", "samples", "generator"].index)
    assert rows[-1] == "generator/latents" and sides.count("samples") == 1
    assert sides.count("discriminator") >= 3 and sides.count("generator") >= 3


def test_the_head_of_a_discriminator_gets_the_slope_of_the_loss() -> None:
    generator, discriminator = MLPGenerator((2,)), MLPDiscriminator((2,))
    seen = telescope.look(generator, discriminator, NonSaturating(), torch.randn(4, generator.latent_dim))
    *_, head = seen.discriminator.values()
    assert head.item() == pytest.approx(torch.sigmoid(-seen.logits).mean().item(), rel=1e-5)


def test_a_block_that_is_called_again_and_again_counts_as_a_whole() -> None:
    torch.manual_seed(0)
    generator = RecurrentTextGenerator((5, 4), latent_dim=3, width=6)
    discriminator = TextDiscriminator((5, 4), widths=(4, 4))
    latents = torch.randn(7, generator.latent_dim)
    norms = telescope.look(generator, discriminator, NonSaturating(), latents).generator
    assert list(norms) == ["latents", "begin", "cell", "head"]
    norm = norms["cell"]
    states: list[torch.Tensor] = []
    generator.cell.register_forward_hook(lambda _m, _i, state: states.append(state))
    objective = NonSaturating().generator(fake=discriminator(generator(latents))).sum()
    gradients = torch.stack(torch.autograd.grad(objective, states))
    assert len(states) == 4 and all(gradient.any() for gradient in gradients)
    assert norm.item() == pytest.approx(gradients.square().sum((0, 2)).sqrt().mean().item(), rel=1e-5)


def test_blocks_leave_out_what_does_not_learn() -> None:
    network = nn.Sequential(
        nn.Linear(2, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 1)
    )
    network[3].requires_grad_(False)
    assert list(telescope.blocks(network)) == ["0", "2"]

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(2, 4)
            self.body = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.last = nn.ModuleDict({"a": nn.Linear(4, 1)})

    assert list(telescope.blocks(Nested())) == ["stem", "body.0", "body.1", "last"]


def test_a_frozen_generator_is_seen_through() -> None:
    generator, discriminator = MLPGenerator((2,)), MLPDiscriminator((2,))
    latents = torch.randn(4, generator.latent_dim)
    whole = telescope.look(generator, discriminator, NonSaturating(), latents)
    generator.requires_grad_(False)
    frozen = telescope.look(generator, discriminator, NonSaturating(), latents)
    torch.testing.assert_close(frozen.feedback, whole.feedback)
    torch.testing.assert_close(frozen.generator["latents"], whole.generator["latents"])


# -- steps


def test_steps() -> None:
    network = nn.Linear(2, 2, bias=False)
    network.weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    first = telescope.copies(network)
    network.weight.data[0, 0] = 3.5
    second = telescope.copies(network)
    assert telescope.step_ratio(first, network).item() == pytest.approx(0.1)
    network.weight.data[0] = torch.tensor([3.2, 0.4])  # 0.3 back, and 0.4 aside
    cosine = telescope.steps_cosine(telescope.step(first, network), telescope.step(second, network))
    there, back = torch.tensor([0.2, 0.4]), torch.tensor([-0.3, 0.4])
    assert cosine.item() == pytest.approx((there @ back / there.norm() / back.norm()).item(), rel=1e-5)
    still = telescope.copies(network)
    assert telescope.steps_cosine(telescope.step(still, network), telescope.step(first, network)) == 0


def test_gradient_use() -> None:
    weight, silent = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([0.0, 5e-4, -3e-3, 4e-3])
    adam = torch.optim.Adam([weight, silent], eps=1e-3)
    share, size = telescope.gradient_use(adam)
    assert share.item() == pytest.approx(4 / 6)  # two small ones, and two that got none
    assert size.item() == pytest.approx(math.sqrt((0.25 + 9 + 16) / 6), rel=1e-6)
    share, size = telescope.gradient_use(torch.optim.SGD([weight]))  # measured by Adam's own 1e-8
    assert share.item() == pytest.approx(1 / 4)
    assert size.item() == pytest.approx(math.sqrt((25e-8 + 9e-6 + 16e-6) / 4) / 1e-8, rel=1e-6)


# -- logits


def test_logit_statistics() -> None:
    real, fake = torch.tensor([[3.0], [1.0], [-1.0], [2.0]]), torch.tensor([[-2.0], [-1.0], [0.5], [-3.0]])
    told = {key: value.item() for key, value in telescope.logit_statistics(real=real, fake=fake).items()}
    assert told["sign_real"] == 0.5 and told["sign_fake"] == -0.5
    assert told["accuracy"] == 0.75
    assert told["separation"] == pytest.approx(
        14.5 / 16
    )  # -1 beats two fakes and draws with one, the rest all
    margins = sorted([5.0, 2.0, -1.5, 5.0])
    for q in (10, 50, 90):
        assert told[f"margin_{q}"] == pytest.approx(torch.tensor(margins).quantile(q / 100).item())


def test_separation_is_the_area_under_the_roc_curve() -> None:
    from sklearn.metrics import roc_auc_score

    generator = torch.Generator().manual_seed(0)
    real, fake = torch.randn(50, 3, generator=generator) + 0.5, torch.randn(70, 3, generator=generator)
    scores = torch.cat([real, fake]).mean(1)
    wanted = roc_auc_score([1] * 50 + [0] * 70, scores)
    assert telescope.separation(real=real, fake=fake).item() == pytest.approx(wanted, abs=1e-6)


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
    share = telescope.derivative_share(loss.generator, real=real, fake=fake, of=["fake"])
    assert share.item() == pytest.approx(slope(real, fake).mean().item(), rel=1e-5)


def test_derivative_share_of_the_discriminators_loss() -> None:
    real, fake = torch.tensor([[2.0], [0.5]]), torch.tensor([[-6.0], [0.25]])
    both = partial(telescope.derivative_share, real=real, fake=fake, of=["real", "fake"])
    wrong = torch.cat([torch.sigmoid(-real), torch.sigmoid(fake)])
    assert both(NonSaturating().discriminator).item() == pytest.approx(wrong.mean().item() / 0.5, rel=1e-5)
    assert both(Hinge().discriminator).item() == pytest.approx(0.5)  # satisfied with 2 and -6
    assert both(Wasserstein().discriminator).item() == 1


def test_cosine_and_norm_are_taken_sample_by_sample() -> None:
    one = torch.tensor([[[3.0, 4.0]], [[1.0, 0.0]], [[0.0, 0.0]]])
    other = torch.tensor([[[6.0, 8.0]], [[0.0, 2.0]], [[1.0, 0.0]]])
    assert telescope.mean_norm(one).item() == pytest.approx((5 + 1 + 0) / 3)
    assert telescope.mean_cosine(one, other).item() == pytest.approx(1 / 3)
