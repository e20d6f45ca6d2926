"""Penalties beyond R1, R2 and WGAN-GP: closed forms, limits, and what they remember."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from litgan.augment import Augmentation
from litgan.losses import NonSaturating
from litgan.networks import DCGANDiscriminator
from litgan.noise import Noise
from litgan.penalties import (
    DRAGAN,
    R1,
    R2,
    Context,
    FiniteDifferenceR1,
    FiniteDifferenceR2,
    LeCam,
    automatic_gamma,
)
from litgan.zoo import BalancedConsistency, LatentConsistency, LatentDiversity, PathLength, StyleGAN2Generator


class Slope(nn.Module):
    """D(x) = <w, x> in two logits whose mean it is."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, math.prod(shape)).view(shape).double())

    def forward(self, samples, labels=None):
        logits = (self.weight * samples).flatten(1).sum(1)
        return torch.stack([3 * logits, -logits], 1)


class LinearGenerator(nn.Module):
    """G(z) = A z."""

    def __init__(self, inputs: int, *shape: int) -> None:
        super().__init__()
        self.shape, self.latent_dim = shape, inputs
        self.matrix = nn.Parameter(torch.randn(math.prod(shape), inputs, dtype=torch.float64))

    def forward(self, latents, labels=None):
        return (latents.double() @ self.matrix.T).view(-1, *self.shape)


def noise(count: int, name: str = "test") -> Noise:
    return Noise(0, 0, 0, count, name)


def call(penalty, discriminator, *, real, fake, generator=None, **more):
    logits = {"real_logits": discriminator(real), "fake_logits": discriminator(fake)}
    more = {"noise": noise(len(real))} | more
    return penalty(Context(generator, discriminator, real=real, fake=fake, **logits, **more))


def of_generator(generator, noise: Noise) -> Context:
    """What a generator's penalty is called with: no samples."""
    return Context(generator, None, noise=noise)


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
    assert automatic_gamma((3, 64, 64), 32) == pytest.approx(4 * automatic_gamma((3, 32, 32), 32))
    assert automatic_gamma((3, 64, 64), 32) == pytest.approx(2 * automatic_gamma((3, 64, 64), 64))


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


class Shifted(Augmentation):
    """Adds what is drawn."""

    draws = 1

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, samples, draws):
        return samples + self.by * (draws[:, :, None] + 1)


class Jittered(Augmentation):
    """Adds what is drawn for each value."""

    draws = 2

    def forward(self, samples, draws):
        return samples + draws


def test_consistency_is_the_squared_gap_of_both_sides(sides):
    critic = Slope(3, 4)
    with torch.no_grad():
        critic.weight += 0.5
    assert call(BalancedConsistency(Shifted(0.0)), critic, **sides).abs().max() < 1e-20
    draws = [noise(64).stream(f"bcr/{side}").uniform(1).double() for side in ("real", "fake")]
    gap = sum(((draw[:, 0] + 1) * critic.weight.sum()).square() for draw in draws)
    # logits 3 d and -d move by 3 and -1 times the gap: mean square 5
    torch.testing.assert_close(
        call(BalancedConsistency(Shifted(1.0)), critic, **sides), 5 * gap, rtol=1e-6, atol=0
    )


def test_latent_consistency_judges_neighbours():
    critic, generator, update = Slope(3, 4), LinearGenerator(5, 3, 4), noise(64)
    fake = generator(update.normal(5)).detach()
    value = call(LatentConsistency(sigma=0.1), critic, real=fake, fake=fake, generator=generator)
    step = generator(0.1 * update.stream("near").normal(5)).flatten(1) @ critic.weight.flatten()
    # logits 3 d and -d move by 3 and -1 times the step: mean square 5
    torch.testing.assert_close(value, 5 * step.square(), rtol=1e-4, atol=1e-7)
    value.mean().backward()
    assert critic.weight.grad.abs().sum() > 0 and generator.matrix.grad is None


def test_latent_consistency_augments_neighbours_as_their_fakes(tiny_gan):
    """Without a step in the latents a neighbour is its fake, which is judged as it was augmented."""
    gan = tiny_gan(loss=NonSaturating(), penalties=[LatentConsistency(sigma=0.0)], augment=Jittered())
    update = Noise(0, 0, 0, 8, "discriminator")
    _, logs = gan.discriminator_loss(torch.randn(8, 2), None, update)
    assert logs["penalty/zcr"].item() == 0
    gan.penalties = (LatentConsistency(sigma=0.1),)
    _, logs = gan.discriminator_loss(torch.randn(8, 2), None, update)
    assert logs["penalty/zcr"].item() > 0


def test_latent_diversity_of_a_linear_generator():
    generator = LinearGenerator(5, 2, 3)
    value = LatentDiversity(sigma=0.1)(of_generator(generator, noise(8)))
    step = 0.1 * noise(8).stream("zcr_generator").normal(5).double() @ generator.matrix.T
    torch.testing.assert_close(value, -step.square().mean(1), rtol=1e-4, atol=1e-7)


def test_path_length_of_a_linear_generator_is_its_closed_form():
    """||A^T y|| with y ~ N(0, I) / sqrt(pixels), the same wherever one stands."""
    generator, penalty = LinearGenerator(5, 2, 4, 4), PathLength(share=1.0)
    probe = noise(8).stream("path_length").normal(2, 4, 4).double().flatten(1) / 4.0
    lengths = (probe @ generator.matrix).norm(dim=1)
    measured = penalty.lengths(of_generator(generator, noise(8)))
    torch.testing.assert_close(measured.double(), lengths, rtol=1e-5, atol=0)
    value = penalty(of_generator(generator, noise(8)))
    torch.testing.assert_close(penalty.mean.double(), 0.01 * lengths.mean())
    torch.testing.assert_close(value.double(), (lengths - 0.01 * lengths.mean()).square(), rtol=1e-5, atol=0)


def test_path_length_settles_at_the_mean_and_looks_at_a_share():
    generator, penalty = LinearGenerator(5, 2, 4, 4), PathLength(share=0.5, decay=0.5)
    context = of_generator(generator, noise(9))
    for update in range(30):
        assert len(penalty(context)) == 5, update
    lengths = penalty.lengths(context)
    torch.testing.assert_close(penalty.mean, lengths.mean())


def test_path_length_runs_through_the_styles_of_stylegan2():
    torch.manual_seed(0)
    generator = StyleGAN2Generator((1, 8, 8), latent_dim=8, style_dim=8, mapping_layers=2, widths=[8, 8])
    penalty = PathLength(share=1.0)
    penalty(of_generator(generator, noise(4))).mean().backward()
    trained = [name for name, weight in generator.named_parameters() if weight.grad is not None]
    assert any(name.startswith("synthesis") for name in trained)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: PathLength(share=0.0), "give a part of the batch"),
        (lambda: PathLength(weight=-1.0), "give a finite number of at least 0"),
        (lambda: PathLength(interval=0), "at least 1"),
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
