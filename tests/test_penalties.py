"""Penalties: closed forms, gradients by finite differences, precision, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from shared.penalties import Linear, call, noise, samples
from torch import nn

from litgan.networks import DCGANDiscriminator
from litgan.penalties import DRAGAN, R1, R2, WGANGP, Context, FiniteDifferenceR1, FiniteDifferenceR2, LeCam
from litgan.schedules import WarmUp

ALL = [R1, R2, WGANGP, DRAGAN, FiniteDifferenceR1, FiniteDifferenceR2, LeCam]
PER_SAMPLE = [R1, R2, WGANGP, DRAGAN, FiniteDifferenceR1]  # LeCam compares with means over the batch
SHAPES = [(5,), (3, 7), (2, 4, 4)]
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])


class Quadratic(Linear):
    """D(x) = <w, x^2> / 2, whose gradient is w x."""

    def forward(self, samples, labels=None):
        return (self.weight * samples.square()).flatten(1).sum(1, keepdim=True) / 2


class Smooth(nn.Module):
    """A small conditional critic without kinks, so that finite differences can be trusted."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 6)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 2))
        self.double()

    def forward(self, samples, labels=None):
        return self.layers(samples.flatten(1) + self.embed(labels))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [R1, R2])
def test_zero_centered_penalties_on_critics_whose_gradient_is_known(kind, shape):
    sides, linear, quadratic = samples(*shape), Linear(*shape), Quadratic(*shape)
    torch.testing.assert_close(call(kind(), linear, **sides), linear.weight.square().sum().expand(6))
    expected = (quadratic.weight * sides["real" if kind is R1 else "fake"]).flatten(1).square().sum(1)
    torch.testing.assert_close(call(kind(), quadratic, **sides), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", [WGANGP(target=0.3), DRAGAN(target=2.0)], ids=repr)
def test_one_centered_penalties_on_a_linear_critic(penalty, shape):
    critic = Linear(*shape)
    expected = (critic.weight.norm() - penalty.target).square().expand(6)
    torch.testing.assert_close(call(penalty, critic, **samples(*shape)), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_wgan_gp_draws_one_epsilon_a_sample(shape):
    sides, critic = samples(*shape), Quadratic(*shape)
    value = call(WGANGP(), critic, **sides, noise=noise(6, first=60))
    epsilon = noise(6, first=60).stream("wgan_gp").uniform(1).double()
    assert len(epsilon.unique()) == 6
    for i, (real, fake) in enumerate(zip(*sides.values(), strict=True)):
        norm = (critic.weight * (epsilon[i] * real + (1 - epsilon[i]) * fake)).norm()
        torch.testing.assert_close(value[i], (norm - 1).square())


def test_wgan_gp_draws_afresh_without_noise():
    values = []
    for seed in (0, 1, 0):
        sides = samples(5)
        torch.manual_seed(seed)
        values.append(call(WGANGP(), Quadratic(5), **sides, noise=None))
    assert not torch.allclose(values[0], values[1]) and torch.equal(values[0], values[2])


def test_dragan_steps_from_the_data_in_units_of_their_deviation():
    given, sides = [], samples(3, 4, count=64)

    def critic(samples, labels=None):
        given.append(samples.detach())
        return samples.square().flatten(1).sum(1, keepdim=True)

    real = 10 * sides["real"]
    call(DRAGAN(deviation=0.25), critic, real=real, fake=sides["fake"])
    ratio = (given[-1] - real).flatten(1).std(1) / real.flatten(1).std(1)
    assert 0.2 < ratio.mean() < 0.3


@pytest.mark.parametrize(
    ("finite", "exact", "side"), [(FiniteDifferenceR1, R1, "real"), (FiniteDifferenceR2, R2, "fake")]
)
def test_finite_differences_tend_to_the_squared_norm(finite, exact, side):
    def critic(samples, labels=None):
        return samples.sin().flatten(1).sum(1, keepdim=True)

    sides = samples(3, 4, count=1)
    many = {name: each.expand(4096, 3, 4) for name, each in sides.items()}
    norm = sides[side][0].cos().square().sum()
    assert abs(call(finite(sigma=1e-4), critic, **many).mean() / norm - 1) < 0.1  # of a chi-square: 2 %
    torch.testing.assert_close(call(exact(), critic, **sides)[0], norm)


def test_finite_differences_need_no_second_derivative():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, samples, weight):
            ctx.save_for_backward(samples)
            return (samples * weight).flatten(1).sum(1, keepdim=True)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return None, (gradient[..., None] * ctx.saved_tensors[0]).sum(0)

    weight = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    critic = lambda samples, labels=None: Once.apply(samples, weight)  # noqa: E731
    call(FiniteDifferenceR1(), critic, **samples(3, 4)).mean().backward()
    assert weight.grad.abs().sum() > 0


def test_lecam_is_its_equation_with_plain_means_at_first():
    sides, critic, penalty = samples(3, 4), Linear(3, 4), LeCam(decay=0.9)
    real, fake = (critic(sides[side]).mean(1) for side in ("real", "fake"))
    value = call(penalty, critic, **sides)
    expected = (real - fake.mean().detach()).square() + (fake - real.mean().detach()).square()
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-5)
    for _ in range(2):
        call(penalty, critic, real=2 * sides["real"], fake=sides["fake"])
    torch.testing.assert_close(penalty.means[0].double(), real.mean() * 5 / 3)
    for _ in range(200):
        call(penalty, critic, **sides)
    torch.testing.assert_close(penalty.means[0].double(), real.mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", PER_SAMPLE)
def test_a_samples_penalty_does_not_depend_on_the_batch_around_it(kind):
    sides, critic = samples(6), Smooth()
    together = call(kind(), critic, **sides, labels=LABELS, noise=noise(6, first=62))
    for start, stop in [(0, 1), (1, 4), (4, 6)]:
        part = {side: each[start:stop] for side, each in sides.items()} | {"labels": LABELS[start:stop]}
        alone = call(kind(), critic, **part, noise=noise(stop - start, first=62 + start))
        torch.testing.assert_close(alone, together[start:stop])
    assert together.std() > 0


@pytest.mark.parametrize("kind", PER_SAMPLE)
def test_the_discriminators_gradient_matches_finite_differences(kind):
    sides, critic, step = samples(6), Smooth(), 1e-6
    parameters = list(critic.parameters())

    def value():
        return call(kind(), critic, **sides, labels=LABELS).mean()

    gradients = torch.autograd.grad(value(), parameters, allow_unused=True, materialize_grads=True)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[:-1])  # the last bias does not bend D
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction, values = torch.randn_like(parameter), []
        for shift in (step, -2 * step):
            parameter.data.add_(direction, alpha=shift)
            values.append(value().detach())
        parameter.data.add_(direction, alpha=step)
        derivative = (values[0] - values[1]) / (2 * step)
        torch.testing.assert_close(derivative, (gradient * direction).sum(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", [WGANGP, DRAGAN])
def test_a_pass_of_its_own_has_the_labels_and_leaves_the_samples_alone(kind):
    sides, critic, values = {side: each.requires_grad_() for side, each in samples(6).items()}, Smooth(), []
    for labels in (torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.long)):
        values.append(kind()(Context(None, critic, labels, noise(6), **sides)))
    assert not torch.allclose(*values)
    values[0].sum().backward()
    assert all(each.grad is None for each in sides.values())


@pytest.mark.parametrize("kind", [WGANGP, DRAGAN])
def test_one_centered_penalties_stay_finite_where_the_critic_is_flat(kind):
    critic = Linear(5)
    nn.init.zeros_(critic.weight)
    value = call(kind(), critic, **samples(5))
    value.sum().backward()
    assert (value == 1).all() and critic.weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", ALL)
def test_bfloat16_autocast_changes_little_and_returns_float32(kind):
    torch.manual_seed(1)
    critic = DCGANDiscriminator((3, 16, 16), widths=(16, 32), initialization="he")
    real, fake = torch.rand(2, 8, 3, 16, 16) * 2 - 1
    penalty = kind(sigma=0.1) if issubclass(kind, FiniteDifferenceR1) else kind()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = call(penalty, critic, real=real, fake=fake)
        assert value.shape == (8,) and value.dtype == torch.float32
        found.append((value, torch.autograd.grad(value.mean(), critic.backbone[0].weight)[0].flatten()))
    (exact, wanted), (value, gradient) = found
    assert wanted.abs().sum() > 0
    if kind in (R1, R2, WGANGP, DRAGAN):
        torch.testing.assert_close(value, exact, rtol=0.03, atol=0.01)
        assert torch.cosine_similarity(gradient, wanted, dim=0) > 0.99


@pytest.mark.parametrize("kind", [R1, R2])
@pytest.mark.parametrize("case", ["no grad on samples", "no graph", "grad too late"])
def test_a_missing_graph_is_one_sentence_that_names_differentiates(kind, case):
    critic, points, labels = Smooth(), samples(6)["real"], torch.zeros(6, dtype=torch.long)
    points.requires_grad_(case == "no graph")
    with torch.set_grad_enabled(case != "no graph"):
        logits = critic(points, labels)
    points.requires_grad_(case != "no grad on samples")
    with pytest.raises(RuntimeError, match=f"{kind.name}.*`differentiates`"):
        kind()(Context(None, critic, real=points, fake=points, real_logits=logits, fake_logits=logits))


def test_gamma_is_twice_the_weight_or_follows_the_rule():
    assert R1(gamma=10).weight == 5
    penalty = R1(gamma="auto", interval=16)
    penalty.setup((3, 256, 256), 64)
    assert penalty.weight == pytest.approx(0.0002 * 256 * 256 / 64 / 2)  # 0.2048 / 2, as StyleGAN2-ADA's auto


def test_weight_and_interval_are_kept():
    penalty = WGANGP(weight=(schedule := WarmUp(64)), interval=4)
    assert penalty.weight is schedule and penalty.interval == 4 and R1(weight=0).weight == 0


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        *((lambda w=weight: R1(weight=w), "weight=") for weight in (-0.1, float("nan"), float("inf"))),
        *((lambda n=number: WGANGP(interval=n), "interval=") for number in (0, -3, 1.5, True)),
        (lambda: FiniteDifferenceR1(sigma=0.0), "sigma=0.0"),
        (lambda: R2(gamma="much"), "R2 has gamma='much'"),
        (lambda: R1(gamma="auto").setup((3, 8, 8), 0), "R1 has gamma=auto, .* batch_size"),
    ],
)
def test_bad_options_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
