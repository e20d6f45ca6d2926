"""Penalties beyond R1, R2 and WGAN-GP: closed forms, limits, and what they remember."""

from __future__ import annotations

import pytest
import torch
from shared.penalties import Slope, call

from litgan.networks import DCGANDiscriminator
from litgan.penalties import (
    DRAGAN,
    R1,
    R2,
    Context,
    FiniteDifferenceR1,
    FiniteDifferenceR2,
    LeCam,
)


@pytest.fixture
def sides():
    torch.manual_seed(0)
    return {side: torch.randn(64, 3, 4, dtype=torch.float64) for side in ("real", "fake")}


def test_dragan_of_a_slope_is_its_distance_from_the_target(sides):
    critic = Slope(3, 4)
    expected = (critic.weight.norm() - 2.0).square().expand(64)
    torch.testing.assert_close(call(DRAGAN(target=2.0), critic, **sides), expected)


def test_dragan_looks_around_the_data_as_far_as_it_is_told(sides):
    seen = []

    def critic(samples, labels=None):
        seen.append(samples.detach())
        return samples.square().flatten(1).sum(1, keepdim=True)

    call(DRAGAN(deviation=0.25), critic, real=10 * sides["real"], fake=sides["fake"])
    step = (seen[-1] - 10 * sides["real"]).flatten(1)
    ratio = step.std(1) / (10 * sides["real"]).flatten(1).std(1)
    assert 0.2 < ratio.mean() < 0.3


@pytest.mark.parametrize(
    ("finite", "exact", "side"), [(FiniteDifferenceR1, R1, "real"), (FiniteDifferenceR2, R2, "fake")]
)
def test_finite_differences_tend_to_the_squared_norm(finite, exact, side, sides):
    def critic(samples, labels=None):
        return samples.sin().flatten(1).sum(1, keepdim=True)

    many = {name: samples[:1].expand(4096, 3, 4) for name, samples in sides.items()}
    estimate = call(finite(sigma=1e-4), critic, **many).mean()
    norm = sides[side][0].cos().square().sum()
    assert abs(estimate / norm - 1) < 0.1  # 4,096 draws of a chi-square: 2 %
    samples = sides[side][:1].clone().requires_grad_()
    others = {"real_logits": critic(samples), "fake_logits": critic(samples)}
    torch.testing.assert_close(exact()(Context(None, critic, real=samples, fake=samples, **others))[0], norm)


def test_finite_differences_need_no_second_derivative(sides):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, samples, weight):
            ctx.save_for_backward(samples, weight)
            return (samples * weight).flatten(1).sum(1, keepdim=True)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            samples, _ = ctx.saved_tensors
            return None, (gradient[..., None] * samples).sum(0)

    weight = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    value = call(FiniteDifferenceR1(), lambda samples, labels=None: Once.apply(samples, weight), **sides)
    value.mean().backward()
    assert weight.grad.abs().sum() > 0


def test_gamma_is_twice_the_weight_or_follows_the_rule():
    assert R1(gamma=10).weight == 5
    penalty = R1(gamma="auto", interval=16)
    penalty.setup((3, 256, 256), 64)
    assert penalty.weight == pytest.approx(0.0002 * 256 * 256 / 64 / 2)  # 0.2048 / 2, as StyleGAN2-ADA's auto


def test_a_wrong_gamma_is_refused():
    with pytest.raises(ValueError, match="R2 has gamma='much': give a number, or auto"):
        R2(gamma="much")
    with pytest.raises(ValueError, match=r"R1 has gamma=auto, .* batch_size: give a number"):
        R1(gamma="auto").setup((3, 8, 8), 0)


def test_lecam_is_its_equation_with_plain_means_at_first(sides):
    critic, penalty = Slope(3, 4), LeCam(decay=0.9)
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


def test_lecam_pulls_the_sides_together(sides):
    critic = Slope(3, 4)
    call(LeCam(), critic, **sides).mean().backward()
    assert critic.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DRAGAN(weight=-1.0), "give a finite number of at least 0"),
        (lambda: DRAGAN(interval=0), "at least 1"),
        (lambda: FiniteDifferenceR1(sigma=0.0), "give a positive step"),
    ],
)
def test_bad_input_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_every_penalty_is_per_sample_and_trains_an_image_critic():
    torch.manual_seed(0)
    critic = DCGANDiscriminator((1, 16, 16), widths=[8, 16])
    real, fake = torch.randn(2, 6, 1, 16, 16)
    for penalty in (DRAGAN(), FiniteDifferenceR1(), FiniteDifferenceR2(), LeCam()):
        critic.zero_grad()
        value = call(penalty, critic, real=real, fake=fake)
        assert value.shape == (6,) and value.isfinite().all()
        value.mean().backward()
        assert sum(weight.grad.abs().sum() for weight in critic.parameters() if weight.grad is not None) > 0
