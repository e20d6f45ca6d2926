import pytest
import torch
from torch import nn

from litgan.networks import DCGANDiscriminator
from litgan.noise import Noise
from litgan.penalties import R1, R2, WGANGP, Context
from litgan.schedules import Constant

SHAPES = [(5,), (3, 7), (2, 4, 4)]
ZERO_CENTERED = [R1, R2]


class Linear(nn.Module):
    """D(x) = <w, x>, whose gradient is w everywhere; K = 2 logits that average to it."""

    def __init__(self, shape):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))

    def forward(self, samples, labels=None):
        logits = (self.weight * samples).flatten(1).sum(1)
        return torch.stack([3 * logits, -logits], 1)


class Quadratic(Linear):
    """D(x) = <w, x^2> / 2, whose gradient is w x."""

    def forward(self, samples, labels=None):
        return (self.weight * samples.square()).flatten(1).sum(1, keepdim=True) / 2


class Smooth(nn.Module):
    """A small conditional critic without kinks, so that finite differences can be trusted."""

    def __init__(self, features=6, classes=3):
        super().__init__()
        self.embed = nn.Embedding(classes, features)
        hidden = [nn.Linear(features, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU()]
        self.layers = nn.Sequential(*hidden, nn.Linear(8, 2))
        self.double()

    def forward(self, samples, labels=None):
        return self.layers(samples.flatten(1) + self.embed(labels))


def samples(shape, count=6):
    return torch.randn(count, *shape, dtype=torch.float64)


def apply(penalty, discriminator, *, real, fake, labels=None, noise=None):
    """What the training step does: grad on what the penalty differentiates, one pass, the penalty."""
    real = real.detach().requires_grad_("real" in penalty.differentiates)
    fake = fake.detach().requires_grad_("fake" in penalty.differentiates)
    real_logits, fake_logits = discriminator(real, labels), discriminator(fake, labels)
    logits = {"real_logits": real_logits, "fake_logits": fake_logits}
    return penalty(Context(None, discriminator, labels, noise, real=real, fake=fake, **logits))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ZERO_CENTERED)
def test_zero_centered_penalties_on_critics_whose_gradient_is_known(kind, shape):
    real, fake = samples(shape), samples(shape)
    linear, quadratic = Linear(shape), Quadratic(shape)
    value = apply(kind(), linear, real=real, fake=fake)
    torch.testing.assert_close(value, linear.weight.square().sum().expand(len(real)))
    value = apply(kind(), quadratic, real=real, fake=fake)
    looked_at = real if kind is R1 else fake
    torch.testing.assert_close(value, (quadratic.weight * looked_at).flatten(1).square().sum(1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("target", [1.0, 0.3])
def test_wgan_gp_on_a_linear_critic(shape, target):
    critic = Linear(shape)
    value = apply(WGANGP(target=target), critic, real=samples(shape), fake=samples(shape))
    torch.testing.assert_close(value, (critic.weight.square().sum().sqrt() - target).square().expand(6))


@pytest.mark.parametrize("shape", SHAPES)
def test_wgan_gp_draws_one_epsilon_a_sample(shape):
    real, fake, critic = samples(shape), samples(shape), Quadratic(shape)
    noise = Noise(seed=3, iteration=5, first=60, count=6)
    value = apply(WGANGP(), critic, real=real, fake=fake, noise=noise)
    epsilon = noise.stream("wgan_gp").uniform(1).double()
    assert len(epsilon.unique()) == 6
    for i in range(6):
        point = epsilon[i] * real[i] + (1 - epsilon[i]) * fake[i]
        norm = (critic.weight * point).square().sum().sqrt()
        torch.testing.assert_close(value[i], (norm - 1).square())


def test_wgan_gp_draws_afresh_without_noise():
    real, fake, critic = samples((5,)), samples((5,)), Quadratic((5,))
    torch.manual_seed(0)
    first = apply(WGANGP(), critic, real=real, fake=fake)
    assert not torch.allclose(first, apply(WGANGP(), critic, real=real, fake=fake))
    torch.manual_seed(0)
    torch.testing.assert_close(first, apply(WGANGP(), critic, real=real, fake=fake))


@pytest.mark.parametrize("kind", [R1, R2, WGANGP])
def test_a_samples_penalty_does_not_depend_on_the_batch_around_it(kind):
    real, fake, labels, critic = samples((6,)), samples((6,)), torch.tensor([0, 1, 2, 2, 1, 0]), Smooth()
    together = apply(kind(), critic, real=real, fake=fake, labels=labels, noise=Noise(1, 2, 62, 6))
    for start, stop in [(0, 1), (1, 4), (4, 6)]:
        part = slice(start, stop)
        alone = apply(
            kind(),
            critic,
            real=real[part],
            fake=fake[part],
            labels=labels[part],
            noise=Noise(1, 2, 62 + start, stop - start),
        )
        torch.testing.assert_close(alone, together[part])
    assert together.std() > 0


@pytest.mark.parametrize("kind", [R1, R2, WGANGP])
def test_the_discriminators_gradient_matches_finite_differences(kind):
    real, fake, labels, critic = samples((6,)), samples((6,)), torch.tensor([0, 1, 2, 2, 1, 0]), Smooth()

    def value():
        return apply(kind(), critic, real=real, fake=fake, labels=labels, noise=Noise(1, 2, 0, 6)).mean()

    parameters = list(critic.parameters())
    gradients = torch.autograd.grad(value(), parameters, allow_unused=True, materialize_grads=True)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[:-1])  # the last bias does not bend D
    step = 1e-6
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn_like(parameter)
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
        above = value().detach()
        with torch.no_grad():
            parameter.sub_(direction, alpha=2 * step)
        below = value().detach()
        with torch.no_grad():
            parameter.add_(direction, alpha=step)
        slope = (above - below) / (2 * step)
        torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=1e-6, atol=1e-9)


def test_wgan_gp_judges_with_the_labels_and_leaves_the_samples_alone():
    real, fake = samples((6,)).requires_grad_(), samples((6,)).requires_grad_()
    critic, noise = Smooth(), Noise(1, 2, 0, 6)
    values = []
    for labels in (torch.zeros(6, dtype=torch.long), torch.ones(6, dtype=torch.long)):
        logits = torch.zeros(6, 1)
        given = {"real": real, "fake": fake, "real_logits": logits, "fake_logits": logits}
        values.append(WGANGP()(Context(None, critic, labels, noise, **given)))
    assert not torch.allclose(*values)
    values[0].sum().backward()
    assert real.grad is None and fake.grad is None


def test_wgan_gp_stays_finite_where_the_critic_is_flat():
    critic = Linear((5,))
    nn.init.zeros_(critic.weight)
    value = apply(WGANGP(), critic, real=samples((5,)), fake=samples((5,)))
    value.sum().backward()
    assert (value == 1).all() and critic.weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", [R1, R2, WGANGP])
def test_bfloat16_autocast_changes_little_and_returns_float32(kind):
    torch.manual_seed(1)
    critic = DCGANDiscriminator((3, 16, 16), widths=(16, 32), initialization="he")
    real, fake = torch.rand(2, 8, 3, 16, 16) * 2 - 1
    given = {"real": real, "fake": fake, "noise": Noise(0, 0, 0, 8)}
    exact = apply(kind(), critic, **given)
    exact_gradients = torch.autograd.grad(exact.mean(), critic.backbone[0].weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        value = apply(kind(), critic, **given)
    gradients = torch.autograd.grad(value.mean(), critic.backbone[0].weight)[0]
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact, rtol=0.03, atol=0.01)
    assert torch.cosine_similarity(gradients.flatten(), exact_gradients.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("kind", ZERO_CENTERED)
@pytest.mark.parametrize("case", ["no grad on samples", "no graph", "grad too late"])
def test_a_missing_graph_is_one_sentence_that_names_differentiates(kind, case):
    critic, points = Smooth(), samples((6,))
    labels = torch.zeros(6, dtype=torch.long)
    points.requires_grad_(case == "no graph")
    with torch.set_grad_enabled(case != "no graph"):
        logits = critic(points, labels)
    points.requires_grad_(case != "no grad on samples")
    with pytest.raises(RuntimeError, match=f"{kind.name}.*`differentiates`"):
        kind()(Context(None, critic, real=points, fake=points, real_logits=logits, fake_logits=logits))


@pytest.mark.parametrize("kind", [R1, R2, WGANGP])
def test_weight_and_interval_are_checked(kind):
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight="):
            kind(weight=weight)
    for interval in (0, -3, 1.5, True):
        with pytest.raises(ValueError, match="interval="):
            kind(interval=interval)
    schedule = Constant(2.0)
    penalty = kind(weight=schedule, interval=4)
    assert penalty.weight is schedule and penalty.interval == 4
    assert kind(weight=0).weight == 0


def test_names_and_what_is_differentiated():
    assert [(kind.name, kind.differentiates) for kind in (R1, R2, WGANGP)] == [
        ("r1", ("real",)),
        ("r2", ("fake",)),
        ("wgan_gp", ()),
    ]
