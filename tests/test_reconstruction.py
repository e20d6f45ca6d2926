"""Reconstruction terms in closed form, and the weight of the adversary beside them."""

from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from shared.pairs import Pairs, Translator, game
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from litgan.adversarial_weight import DELTA, AdaptiveWeight
from litgan.augment import Augmentation, DiffAugment
from litgan.callbacks import Feedback
from litgan.metrics import Embedded
from litgan.noise import Noise
from litgan.penalties import Context
from litgan.reconstruction import L1, L2, AuxiliaryLoss, Charbonnier, FeatureMatching, Likelihood, Perceptual
from litgan.schedules import Linear

REAL, FAKE = torch.randn(2, 3, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NOISE = Noise(0, 0, 0, 3, "generator")


def context(real=REAL, fake=FAKE, generator=None, discriminator=None, **more):
    return Context(generator, discriminator, real=real, fake=fake, **more)


@pytest.mark.parametrize(
    ("term", "wanted"),
    [
        (L1(), [(x - y).abs().sum() / 24 for x, y in zip(REAL, FAKE, strict=True)]),
        (L2(), [(x - y).square().sum() / 24 for x, y in zip(REAL, FAKE, strict=True)]),
        (
            Charbonnier(),
            [torch.hypot(x - y, x.new_tensor(1e-3)).mean() for x, y in zip(REAL, FAKE, strict=True)],
        ),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_distances_between_values(term, wanted):
    torch.testing.assert_close(term(context()), torch.stack(wanted))
    assert term(context(fake=REAL)).max() < 1.1e-3


class Layers(nn.Module):
    """Two layers: all values doubled, and the sums of rows."""

    def features(self, samples, condition):
        return [2 * samples, samples.sum(3)]


def test_features_are_matched_layer_by_layer():
    found = FeatureMatching()(context(discriminator=Layers()))
    wanted = [2 * (FAKE - REAL).abs().flatten(1).mean(1), (FAKE - REAL).sum(3).abs().flatten(1).mean(1)]
    torch.testing.assert_close(found, sum(wanted))
    with pytest.raises(ValueError, match=r"^FeatureMatching .* Linear has no method features"):
        FeatureMatching()(context(discriminator=nn.Linear(2, 2)))


def test_both_sides_are_augmented_alike_before_their_features_are_matched(tiny_gan):
    gan, images = tiny_gan(**game(augment=DiffAugment())), torch.randn(3, 1, 8, 8)
    given = context(
        images, images, None, gan.discriminator, condition=images, noise=NOISE, augment=gan.augmented
    )
    assert FeatureMatching()(given).abs().max() == 0
    plain = FeatureMatching()(context(images, -images, None, gan.discriminator, condition=images))
    given.fake = -images
    assert not torch.allclose(FeatureMatching()(given), plain)


def test_perceptual_distance_is_that_of_directions():
    extractor = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), nn.Conv2d(3, 2, 2)).double()
    term = Perceptual(extractor, layers=["0", "2"])
    given, wanted = context(fake=FAKE.clone().requires_grad_()), 0
    for depth in (1, 3):
        first, second = (extractor[:depth](one) for one in (REAL, FAKE))
        cosine = torch.cosine_similarity(first, second, dim=1)
        wanted = wanted + (2 - 2 * cosine).flatten(1).mean(1)  # of two vectors of length 1
    torch.testing.assert_close(term(given), wanted)
    (gradient,) = torch.autograd.grad(term(given).sum(), given.fake)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    assert not any(weight.requires_grad for weight in extractor.parameters()) and not extractor.training
    assert term(context(fake=REAL)).abs().max() < 1e-12
    vectors = Perceptual(nn.Flatten())(context())
    torch.testing.assert_close(vectors, 2 - 2 * torch.cosine_similarity(REAL.flatten(1), FAKE.flatten(1)))
    with pytest.raises(
        ValueError, match=r"^Perceptual finds no layer '7' in its extractor: give some of 0, 1"
    ):
        Perceptual(extractor, layers=["7"])


def test_an_embedded_classifier_judges_and_stays_out_of_the_checkpoint(tiny_gan, make_trainer):
    gan = tiny_gan(**game(reconstruction=[Perceptual(Embedded("digits"), layers=["trunk.3"]), L1()]))
    before = set(gan.state_dict())
    make_trainer(1).fit(gan, datamodule=Pairs())
    assert gan.state_dict().keys() == before and not any("trunk" in name for name in before)
    assert gan.last_logs["reconstruction/perceptual"] > 0


class Quantizing(nn.Module):
    auxiliary_loss = None


def test_a_generator_may_add_a_loss_of_its_own():
    generator = Quantizing()
    with pytest.raises(ValueError, match=r"^AuxiliaryLoss finds no auxiliary_loss in Quantizing"):
        AuxiliaryLoss()(context(generator=generator))
    for generator.auxiliary_loss in (torch.tensor(2.0), torch.tensor([2.0, 2.0, 2.0])):
        assert AuxiliaryLoss()(context(generator=generator)).tolist() == [2, 2, 2]


class Coin(nn.Module):
    """Zeros and ones, of which a one has the probability 1/4."""

    latent_dim = 1

    def log_likelihood(self, samples, latents, condition):
        assert latents.shape == (3, 1) and condition is None
        return torch.where(samples > 0.5, 0.25, 0.75).log().flatten(1).mean(1)


def test_the_likelihood_is_that_of_the_real_samples():
    real = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = Likelihood()(context(real, generator=Coin()))
    once, thrice = math.log(4), math.log(4 / 3)
    assert found.tolist() == pytest.approx([thrice, (thrice + once) / 2, once])
    with pytest.raises(ValueError, match=r"^Likelihood asks .* Quantizing has no method log_likelihood"):
        Likelihood()(context(generator=Quantizing()))


def made(tiny_gan, **options):
    return tiny_gan(**game(**{"generator": Translator, "penalties": []} | options))


def gradients(gan, loss):
    return torch.autograd.grad(loss, list(gan.generator.parameters()))


def test_the_loss_of_the_generator_is_the_weighted_sum(tiny_gan):
    gan, noise = (
        made(tiny_gan, reconstruction=[L1(3.0), L2(Linear(1.0, 2.0, images=10))]),
        Noise(0, 0, 0, 8, "g"),
    )
    gan.adversarial_weight, gan.images_seen = Linear(0.0, 0.5, images=10, begin=10), 15
    real, condition = next(Pairs().real_batches(8))
    loss, logs = gan.generator_loss(real, condition, noise)
    fake = gan.generator(None, condition)
    adversarial = gan.loss.generator(fake=gan.discriminator(fake, condition)).mean()
    wanted = 3 * (fake - real).abs().mean() + 2 * (fake - real).square().mean() + 0.25 * adversarial
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(logs["loss/generator"], loss)
    torch.testing.assert_close(logs["reconstruction/l1"], (fake - real).abs().mean())


def test_an_adversary_without_weight_costs_no_pass_and_learns_all_the_same(tiny_gan, make_trainer):
    gan = made(tiny_gan, reconstruction=L1(), adversarial_weight=Linear(0.0, 1.0, images=1, begin=24))
    passes = []
    gan.discriminator.register_forward_hook(lambda *_: passes.append((gan.updating, gan.images_seen)))
    before = copy.deepcopy(gan.discriminator.state_dict())
    make_trainer(4).fit(gan, datamodule=Pairs())
    assert [seen for name, seen in passes if name == "generator"] == [32], "after 8, 16 and 24 images none"
    assert len([seen for name, seen in passes if name == "discriminator"]) == 8
    assert not torch.equal(gan.discriminator.head.weight, before["head.weight"])


class Counting(Augmentation):
    """Changes nothing, and counts the calls that adapt it."""

    num_uniforms = 1

    def __init__(self):
        super().__init__()
        self.updates = []

    def forward(self, samples, uniforms):
        return samples

    def move(self, condition, uniforms, size):
        return condition

    def update_p(self, updates, images):
        self.updates.append((updates, images))


@pytest.mark.parametrize(("start", "heard"), [(0, [16, 32, 48]), (24, [32, 48]), (26, [48]), (32, [48])])
def test_the_generator_hears_no_discriminator_before_its_first_step(start, heard, tiny_gan, make_trainer):
    gan = made(tiny_gan, reconstruction=L1(), discriminator_start=start, discriminator_steps=2)
    asked, stepped = [], []
    gan.discriminator.register_forward_hook(
        lambda *_: (asked if gan.updating == "generator" else stepped).append(gan.images_seen)
    )
    make_trainer(3).fit(gan, datamodule=Pairs())
    assert asked == heard and min(stepped) < heard[0], "batches of 8, after which the last step may begin"


def test_a_discriminator_may_begin_late_and_the_clock_counts_all_the_same(tiny_gan, make_trainer):
    gan = made(
        tiny_gan, reconstruction=L1(), adversarial_weight=0.1, discriminator_start=24, augment=Counting(),
        discriminator_steps=2,
    )  # fmt: skip
    before, asked = copy.deepcopy(gan.discriminator.state_dict()), []
    gan.discriminator.register_forward_hook(lambda *_: asked.append((gan.updating, gan.images_seen)))
    make_trainer(1).fit(gan, datamodule=Pairs())
    assert gan.images_seen == 16 and gan.discriminator_updates == 2
    assert asked == [], "nor does the generator learn from one that has not learned"
    assert all(torch.equal(before[name], value) for name, value in gan.discriminator.state_dict().items())
    make_trainer(3).fit(gan, datamodule=Pairs())
    assert gan.images_seen == 64 and gan.augment.updates == [(4 + n, 8) for n in range(5)]
    assert [seen for name, seen in asked if name == "generator"] == [32, 48, 64]
    assert not torch.equal(gan.discriminator.head.weight, before["head.weight"])


@pytest.mark.parametrize("limit", [1e4, 0.5])
def test_the_adaptive_weight_is_that_of_autograd_by_hand(limit, tiny_gan):
    gan = made(tiny_gan, reconstruction=L1(10.0), adversarial_weight=AdaptiveWeight(0.8, limit))
    real, condition = next(Pairs().real_batches(8))
    loss, _ = gan.generator_loss(real, condition, Noise(0, 0, 0, 8, "g"))
    fake = gan.generator(None, condition)
    reconstruction = 10 * (fake - real).abs().mean()
    adversarial = gan.loss.generator(fake=gan.discriminator(fake, condition)).mean()
    layer = gan.generator.layers[2].weight
    of_rest, of_adversary = (
        torch.autograd.grad(one, layer, retain_graph=True)[0].norm() for one in (reconstruction, adversarial)
    )
    ratio = (of_rest / (of_adversary + DELTA)).item()
    assert ratio > 0.6
    wanted = reconstruction + 0.8 * min(ratio, limit) * adversarial
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(gradients(gan, loss), gradients(gan, wanted))


def test_the_feedback_is_the_gradient_of_the_whole_loss(tiny_gan, make_trainer, memory):
    gan = made(tiny_gan, reconstruction=L1(10.0), adversarial_weight=AdaptiveWeight(0.8))
    real, condition = next(Pairs().real_batches(8))
    seen = []
    watched = gan.generator.register_forward_hook(lambda _, __, fake: seen.append(fake))
    loss, _ = gan.generator_loss(real, condition, Noise(0, 0, 0, 8, "g"))
    watched.remove()
    (feedback,) = torch.autograd.grad(loss, seen.pop())
    wanted = (8 * feedback).flatten(1).norm(dim=1).mean().item()

    gan.adversarial_weight = AdaptiveWeight(0.8)
    still = partial(torch.optim.SGD, lr=0.0)  # the discriminator stays what it is
    gan.optimizer_factories = (gan.optimizer_factories[0], still)
    trainer = make_trainer(1, callbacks=[Feedback(every=0)], logger=memory, log_every_n_steps=1)
    trainer.fit(gan, DataLoader(TensorDataset(real, condition), batch_size=8))
    assert memory.values("gradient/feedback") == {8: pytest.approx(wanted, rel=1e-5)}


class Unquestioned(nn.Module):
    """A generator without the attribute that an adaptive weight needs."""

    latent_dim = 0

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, latents, condition):
        return self.layer(condition)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"adversarial_weight": 0.0}, "^adversarial_weight is 0 after 0 images, .* no reconstruction"),
        ({"discriminator_start": 100}, "^discriminator_start is 100 after 0 images, .* no reconstruction"),
        ({"adversarial_weight": -1.0}, r"^adversarial_weight is -1\.0: give a finite number"),
        ({"adversarial_weight": AdaptiveWeight()}, "^AdaptiveWeight .* give reconstruction terms"),
        (
            {"adversarial_weight": AdaptiveWeight(), "reconstruction": L1(), "generator": Unquestioned()},
            "^AdaptiveWeight compares .* last_layer",
        ),
    ],
)
def test_a_loss_without_anything_to_learn_from_is_refused(options, sentence, tiny_gan, make_trainer):
    with pytest.raises(ValueError, match=sentence):
        make_trainer(1).fit(made(tiny_gan, **options), datamodule=Pairs())


def test_weights_below_zero_are_refused():
    with pytest.raises(ValueError, match="L1 has weight=-1"):
        L1(-1)
