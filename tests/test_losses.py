from functools import partial

import numpy as np
import pytest
import torch

from litgan import GAN
from litgan.losses import Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein

LOSSES = [Minimax, NonSaturating, Hinge, LeastSquares, Wasserstein, Relativistic]


def sigmoid(t):
    return 1 / (1 + np.exp(-t))


def pair(values):
    """The values as logits [B, 1] in double precision, a leaf of the graph."""
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1).requires_grad_()


# Written with probabilities and maxima, unlike the code, of real logits r and fake logits f.
DISCRIMINATOR = {
    Minimax: lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)),
    NonSaturating: lambda r, f: -np.log(sigmoid(r)) - np.log(1 - sigmoid(f)),
    Hinge: lambda r, f: np.maximum(0, 1 - r) + np.maximum(0, 1 + f),
    LeastSquares: lambda r, f: 0.5 * (r - 1) ** 2 + 0.5 * f**2,
    Wasserstein: lambda r, f: f - r,
    Relativistic: lambda r, f: -np.log(sigmoid(r - f)),
}
GENERATOR = {
    Minimax: lambda r, f: np.log(1 - sigmoid(f)),
    NonSaturating: lambda r, f: -np.log(sigmoid(f)),
    Hinge: lambda r, f: -f,
    LeastSquares: lambda r, f: 0.5 * (f - 1) ** 2,
    Wasserstein: lambda r, f: -f,
    Relativistic: lambda r, f: -np.log(sigmoid(f - r)),
}
REAL = np.array([-3.0, -1.2, 0.0, 0.4, 0.9, 1.7, 4.0])
FAKE = np.array([2.0, -0.3, 0.0, -2.6, 1.1, -1.4, -5.0])


@pytest.mark.parametrize("kind", LOSSES)
def test_values_are_the_closed_forms_sample_by_sample(kind):
    loss = kind()
    of_d = loss.discriminator(real=pair(REAL), fake=pair(FAKE))
    of_g = loss.generator(real=pair(REAL), fake=pair(FAKE))
    assert of_d.shape == of_g.shape == (len(REAL),)
    np.testing.assert_allclose(of_d.detach(), DISCRIMINATOR[kind](REAL, FAKE), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(of_g.detach(), GENERATOR[kind](REAL, FAKE), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", LOSSES)
def test_gradients_are_those_of_the_closed_forms(kind):
    step = 1e-6
    for method, formula in [("discriminator", DISCRIMINATOR[kind]), ("generator", GENERATOR[kind])]:
        real, fake = pair(REAL), pair(FAKE)
        total = getattr(kind(), method)(real=real, fake=fake).sum()
        by_real, by_fake = torch.autograd.grad(total, (real, fake), allow_unused=True, materialize_grads=True)
        slope_real = (formula(REAL + step, FAKE) - formula(REAL - step, FAKE)) / (2 * step)
        slope_fake = (formula(REAL, FAKE + step) - formula(REAL, FAKE - step)) / (2 * step)
        np.testing.assert_allclose(by_real.squeeze(1), slope_real, atol=1e-8)
        np.testing.assert_allclose(by_fake.squeeze(1), slope_fake, atol=1e-8)


def test_a_losing_generator_learns_from_the_non_saturating_loss_only():
    slopes = {}
    for kind in (Minimax, NonSaturating):
        fake = pair([-20.0])
        (slopes[kind],) = torch.autograd.grad(kind().generator(fake=fake).sum(), fake)
    assert -1e-8 < slopes[Minimax].item() < 0
    assert slopes[NonSaturating].item() == pytest.approx(-1, abs=1e-8)


def test_the_relativistic_loss_knows_the_difference_only():
    loss, (real, fake) = Relativistic(), torch.randn(2, 9, 3, dtype=torch.float64)
    for term in (loss.discriminator, loss.generator):
        value = term(real=real, fake=fake)
        torch.testing.assert_close(term(real=real + 7, fake=fake + 7), value)
        assert not torch.allclose(term(real=real + 7, fake=fake), value)
    torch.testing.assert_close(loss.generator(real=real, fake=fake), loss.discriminator(real=fake, fake=real))


@pytest.mark.parametrize("kind", [Minimax, NonSaturating, Hinge, LeastSquares, Relativistic])
def test_patches_are_averaged_after_the_non_linearity(kind):
    real, fake = torch.tensor([[-3.0, 5.0]]), torch.tensor([[4.0, -2.0]])
    loss = kind()
    value = loss.discriminator(real=real, fake=fake)
    patches = [loss.discriminator(real=real[:, k : k + 1], fake=fake[:, k : k + 1]) for k in range(2)]
    torch.testing.assert_close(value, (patches[0] + patches[1]) / 2)
    before = loss.discriminator(real=real.mean(1, keepdim=True), fake=fake.mean(1, keepdim=True))
    assert (value - before).abs() > 0.1


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("magnitude", [50.0, -50.0])
def test_bfloat16_logits_get_float32_arithmetic(kind, magnitude):
    real = torch.tensor([[magnitude], [0.3]], dtype=torch.bfloat16, requires_grad=True)
    fake = torch.tensor([[magnitude], [-0.7]], dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        values = [kind().discriminator(real=real, fake=fake), kind().generator(real=real, fake=fake)]
    wide = {"real": real.detach().double(), "fake": fake.detach().double()}
    for value, exact in zip(values, [kind().discriminator(**wide), kind().generator(**wide)], strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), exact, rtol=1e-6, atol=1e-7)
    torch.stack(values).sum().backward()
    assert real.grad.isfinite().all() and fake.grad.isfinite().all()


@pytest.mark.parametrize("kind", LOSSES)
def test_only_pairing_losses_read_the_real_logits_in_the_generators_loss(kind):
    loss, fake = kind(), torch.randn(4, 1)
    assert loss.relativistic == (kind is Relativistic)
    if loss.relativistic:
        with pytest.raises(ValueError, match="needs real logits"):
            loss.generator(fake=fake)
    else:
        assert torch.equal(loss.generator(fake=fake), loss.generator(real=torch.randn(4, 1), fake=fake))


@pytest.mark.parametrize(("real", "fake"), [((4,), (4,)), ((4, 1), (1, 1)), ((4, 1, 2), (4, 1, 2))])
def test_logits_of_other_shapes_are_refused(real, fake):
    with pytest.raises(ValueError, match=r"one shape \[B, K\]"):
        Wasserstein().discriminator(real=torch.zeros(real), fake=torch.zeros(fake))


def test_several_discriminators_in_one_weigh_alike_however_many_logits_each_has():
    """The sum over the discriminators of each one's own loss."""
    real, fake = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for kind in LOSSES:
        plain, several = kind(), kind().sum_of_means((1, 3, 2))
        parts = [(real[:, a:b], fake[:, a:b]) for a, b in ((0, 1), (1, 4), (4, 6))]
        for method in ("discriminator", "generator"):
            expected = sum(getattr(plain, method)(real=r, fake=f) for r, f in parts)
            torch.testing.assert_close(getattr(several, method)(real=real, fake=fake), expected)
        assert plain.sum_of_means(()) is plain and plain.counts == ()
        with pytest.raises(ValueError, match=r"logit_counts \[1, 3, 2\].* 5 logits"):
            several.discriminator(real=real[:, 1:], fake=fake[:, 1:])


def test_a_gan_takes_the_counts_of_its_discriminator():
    class Two(torch.nn.Linear):
        logit_counts = (1, 2)

    generator = torch.nn.Linear(2, 4)
    sgd = partial(torch.optim.SGD, lr=0.1)
    gan = GAN(generator, Two(4, 3), LeastSquares(), sgd, sgd, sample_shape=(4,), latent_dim=2)
    fake = torch.tensor([[3.0, 1.0, 0.0]])
    assert gan.loss.generator(fake=fake).tolist() == [2.0 + 0.25]
