"""One stage: the generator's gradient out of the discriminator's own pass, and where that cannot be."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from shared.learning import check_one_gaussian
from shared.resuming import Recorder
from torch import nn

from litgan import GAN
from litgan.callbacks import Feedback
from litgan.data import Digits
from litgan.losses import Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein
from litgan.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator
from litgan.noise import Noise
from litgan.penalties import R1, R2, WGANGP, Penalty
from litgan.zoo import ADA, OneStageGAN
from litgan.zoo.one_stage import gradient_ratio

LOSSES = [NonSaturating(), Minimax(), LeastSquares(), Wasserstein(), Relativistic()]
PENALTIES = {"": [], "R1": [R1(0.5)], "R1 and R2": [R1(0.1), R2(0.2)], "WGAN-GP": [WGANGP()]}
FIXED = partial(torch.optim.SGD, lr=0.0)
STEADY = partial(torch.optim.SGD, lr=0.02)  # Adam would enlarge rounding errors to whole steps
PICTURES = {
    "generator": partial(DCGANGenerator, latent_dim=4, widths=(16, 8), norm="group"),
    "discriminator": partial(DCGANDiscriminator, widths=(8, 16), norm="group"),
    "sample_shape": (1, 8, 8),
    "condition": 10,
}


class RecordedGAN(GAN):
    """Records each update's gradients at its optimizer step; both updates use the same random numbers."""

    def generate(self, condition, noise):
        return super().generate(condition, replace(noise, name="both"))

    def augmented(self, samples, condition, noise):
        return super().augmented(samples, condition, replace(noise, name=noise.name.rpartition("/")[2]))

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        gradients = {
            name: value.grad.clone() for name, value in self.named_parameters() if value.requires_grad
        }
        self.__dict__.setdefault("recorded", []).append((self.updating, gradients))


class RecordedOneStageGAN(RecordedGAN, OneStageGAN):
    """The same in one stage."""


KINDS = {"alternating": RecordedGAN, "one_stage": RecordedOneStageGAN}


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """The largest distance of two tensors of one name, relative to the norm over all."""
    assert left.keys() == right.keys()
    whole = torch.cat([value.flatten() for value in right.values()]).norm()
    assert whole > 1e-5
    return max(((left[name] - right[name]).norm() / whole).item() for name in right)


@pytest.fixture
def gradients(tiny_gan, tiny_data, make_trainer):
    """Gradients of two iterations that move nothing: [(network, by name)] of two passes, then of one."""

    def catch(*, data=None, trainer=None, **options):
        found = []
        for kind in KINDS.values():
            still = {"generator_optimizer": FIXED, "discriminator_optimizer": FIXED}
            gan = tiny_gan(kind, **(still | options))
            make_trainer(2, **(trainer or {})).fit(gan, datamodule=data or tiny_data())
            found.append(gan.recorded)
        return found

    return catch


def assert_same_gradients(two_passes, one_stage, tolerance=1e-5):
    assert [name for name, _ in two_passes] == [name for name, _ in one_stage]
    for (name, wanted), (_, got) in zip(two_passes, one_stage, strict=True):
        if name == "discriminator":
            assert all(torch.equal(got[key], wanted[key]) for key in wanted)
        else:
            assert distance(got, wanted) < tolerance


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("penalties", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_gradients_are_those_of_two_passes(loss, penalties, parts, gradients):
    assert_same_gradients(*gradients(loss=loss, penalties=penalties, micro_batches=parts))


class OfLogits(Penalty):
    """As LeCam (Tseng et al. 2021) it depends on the fakes' logits and differentiates none."""

    name = "of_logits"

    def __call__(self, context):
        return (context.real_logits.square() + context.fake_logits.square()).sum(1)


class DeclaredOfLogits(OfLogits):
    differentiates = ("fake",)


LABELS = {"data": Digits(batch_size=8, num_classes=10), "penalties": [R1(0.1)], "micro_batches": 2}
OPTIONS = {
    "2 discriminator steps": {"discriminator_steps": 2, "penalties": [R1(0.1), R2(0.2, interval=2)]},
    "3 discriminator steps": {"discriminator_steps": 3, "penalties": [R1(0.1), R2(0.2, interval=2)]},
    "convolutions and labels": LABELS | PICTURES,
    "convolutions, labels and pairs": LABELS | PICTURES | {"loss": Relativistic()},
    "an augmentation": LABELS
    | PICTURES
    | {"augment": ADA(0.8, target=None), "penalties": [R1(0.1), R2(0.2)]},
    "a declared penalty": {"penalties": [DeclaredOfLogits(0.3)]},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_same_with_other_options(options, gradients):
    assert_same_gradients(*gradients(**options))


def test_clipping_acts_on_the_same_gradients(gradients):
    two_passes, one_stage = gradients(gradient_clip_val={"generator": 0.01, "discriminator": 0.02})
    for name, caught in one_stage:
        norm = torch.cat([gradient.flatten() for gradient in caught.values()]).norm()
        assert norm.item() == pytest.approx({"generator": 0.01, "discriminator": 0.02}[name], rel=1e-3)
    assert_same_gradients(two_passes, one_stage)


def test_bfloat16_differs_by_its_rounding(gradients):
    data, trainer = Digits(batch_size=8, num_classes=10), {"precision": "bf16-mixed"}
    two_passes, one_stage = gradients(penalties=[R1(0.1)], data=data, trainer=trainer, **PICTURES)
    assert_same_gradients(two_passes, one_stage, tolerance=0.01)
    assert distance(one_stage[1][1], two_passes[1][1]) > 0  # it was bfloat16


def test_both_updates_start_from_the_same_state(tiny_gan, tiny_data, make_trainer):
    """Three steps by hand on Goodfellow's losses: updates are simultaneous."""
    options = {"generator_optimizer": STEADY, "discriminator_optimizer": STEADY}
    trained, byhand = (tiny_gan(RecordedOneStageGAN, **options) for _ in range(2))
    reals = Recorder()
    make_trainer(3, callbacks=[reals]).fit(trained, datamodule=tiny_data())
    softplus = nn.functional.softplus
    for iteration, real in enumerate(reals.batches):
        fake = byhand.generator(Noise(0, iteration, 0, len(real), "both").normal(4))
        real_logits, fake_logits = (byhand.discriminator(each) for each in (real, fake.detach()))
        of_discriminator = (softplus(-real_logits) + softplus(fake_logits)).mean()
        of_generator = softplus(-byhand.discriminator(fake)).mean()
        steps = [
            (weight, gradient)
            for loss, network in ((of_discriminator, byhand.discriminator), (of_generator, byhand.generator))
            for weight, gradient in zip(
                network.parameters(),
                torch.autograd.grad(loss, [*network.parameters()], retain_graph=True),
                strict=True,
            )
        ]
        with torch.no_grad():
            for weight, gradient in steps:
                weight -= 0.02 * gradient
    for name in ("generator", "discriminator"):
        wanted, got = getattr(byhand, name).state_dict(), getattr(trained, name).state_dict()
        assert distance(got, wanted) < 1e-6


class Passes(Callback):
    """Counts the forward passes of both networks."""

    def on_train_start(self, trainer, gan):
        self.count = {"generator": 0, "discriminator": 0}
        for name in self.count:
            getattr(gan, name).register_forward_hook(partial(self.note, name))

    def note(self, name, *_):
        self.count[name] += 1


@pytest.mark.parametrize(
    ("kind", "steps", "passes"),
    [(OneStageGAN, 1, (1, 2)), (GAN, 1, (2, 3)), (OneStageGAN, 3, (3, 6)), (GAN, 3, (4, 7))],
)
def test_it_saves_a_pass_through_each_network(kind, steps, passes, tiny_gan, tiny_data, make_trainer):
    watcher = Passes()
    gan = tiny_gan(kind, discriminator_steps=steps, penalties=[R1(0.1), R2(0.1)])
    make_trainer(4, callbacks=[watcher]).fit(gan, datamodule=tiny_data())
    assert tuple(watcher.count.values()) == tuple(4 * number for number in passes)


def test_the_logged_values_are_the_same(tiny_gan, tiny_data, make_trainer, tmp_path):
    logged = {}
    for update, kind in KINDS.items():
        still = {"discriminator_optimizer": FIXED, "generator_optimizer": FIXED}
        gan = tiny_gan(kind, penalties=[R2(1.0)], **still)
        watcher = Feedback(every=0, folder=str(tmp_path))
        make_trainer(2, callbacks=[watcher], log_every_n_steps=1).fit(gan, datamodule=tiny_data())
        logged[update] = gan.logged
    assert {"gradient/feedback", "gradient/generator", "loss/generator"} <= logged["one_stage"].keys()
    assert logged["one_stage"] == pytest.approx(logged["alternating"], rel=1e-5)


def test_an_interrupted_iteration_leaves_no_cached_passes(tiny_gan, tiny_data, make_trainer):
    """As an interrupt between the two updates does."""
    gan, twin = (tiny_gan(OneStageGAN) for _ in range(2))
    gan.generator_loss = lambda *_: (_ for _ in ()).throw(RuntimeError("cut short"))
    with pytest.raises(RuntimeError, match="cut short"):
        make_trainer(1).fit(gan, datamodule=tiny_data())
    assert gan.cached_passes
    del gan.generator_loss
    gan.load_state_dict(twin.state_dict())
    gan.images_seen = gan.images_per_iteration = gan.discriminator_updates = 0
    for each in (gan, twin):
        make_trainer(2).fit(each, datamodule=tiny_data())
    assert all(torch.equal(gan.state_dict()[name], value) for name, value in twin.state_dict().items())


@pytest.mark.train
@pytest.mark.parametrize(
    ("loss", "penalties", "iterations"),
    [
        (NonSaturating(), [R1(0.02)], 150),
        (Relativistic(), [R1(0.02), R2(0.02)], 150),
        (LeastSquares(), [R1(0.02)], 150),
        (Wasserstein(), [WGANGP(0.1)], 300),
    ],
    ids=repr,
)
def test_it_finds_one_gaussian(loss, penalties, iterations, tiny_gan, make_trainer):
    options = {"kind": OneStageGAN, "loss": loss, "penalties": penalties}
    check_one_gaussian(tiny_gan, make_trainer, iterations, **options)


# -- the ratio ---------------------------------------------------------------------------------


def test_the_ratio_by_hand():
    """NonSaturating: -sigmoid(-D) / sigmoid(D) = -exp(-D)."""
    fake = torch.tensor([[-60.0], [-2.0], [0.0], [3.0], [60.0]])
    ratio = gradient_ratio(NonSaturating(), real=fake, fake=fake)
    torch.testing.assert_close(ratio, -torch.exp(-fake), rtol=1e-5, atol=0)
    squares = gradient_ratio(LeastSquares(), real=fake, fake=fake)
    assert squares[2] == 0  # nothing to scale
    torch.testing.assert_close(squares[[0, 1, 3, 4]], (fake - 1)[[0, 1, 3, 4]] / fake[[0, 1, 3, 4]])


@pytest.mark.parametrize("logit", [-85.0, -88.0, -95.0, -103.0, -120.0, -1e30])
def test_very_low_logits_give_a_finite_ratio(logit):
    """Below -87 a derivative of float32 loses its digits, below -103 all of itself."""
    ratio = gradient_ratio(NonSaturating(), real=torch.zeros(1, 1), fake=torch.full((1, 1), logit))
    assert ratio.isfinite().all() and (ratio != 0) == (logit > -87)


# -- what it refuses ---------------------------------------------------------------------------


class BatchSpread(nn.Module):
    """A user's discriminator with the batch's standard deviation as a feature (Karras et al. 2018)."""

    def __init__(self, sample_shape, num_classes=0, *, logits=1, mixes=True):
        super().__init__()
        self.mixes = mixes
        self.linear = nn.Linear(3, logits)

    def forward(self, samples, labels=None):
        spread = samples.std(0).mean() if self.mixes else samples.new_zeros(())
        return self.linear(torch.cat([samples, spread.expand(len(samples), 1)], dim=1))


BATCH_NORM = PICTURES | {"discriminator": partial(DCGANDiscriminator, widths=(8, 16), norm="batch")}
PATCHES = partial(BatchSpread, logits=4, mixes=False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"loss": Hinge()}, "Hinge has no gradient at fakes .*: take NonSaturating"),
        (BATCH_NORM, "DCGANDiscriminator mixes the samples .*: take a discriminator that does not"),
        ({"discriminator": BatchSpread}, r"BatchSpread mixes the samples .*, or litgan\.GAN"),
        ({"adversarial_weight": 0.5}, "OneStageGAN has no reconstruction, adversarial_weight"),
        ({"discriminator": PATCHES}, "BatchSpread gives 4 logits for each sample: take one that gives 1"),
    ],
)
def test_what_one_stage_cannot_train_is_refused_at_construction(options, sentence, tiny_gan):
    with pytest.raises(ValueError, match=sentence) as caught:
        tiny_gan(OneStageGAN, **options)
    assert "\n" not in str(caught.value)


def test_a_network_of_the_user_without_mixing_is_accepted(tiny_gan):
    gan = tiny_gan(OneStageGAN, discriminator=partial(BatchSpread, mixes=False))
    assert isinstance(gan.discriminator, BatchSpread)


def test_the_check_leaves_the_network_unchanged(tiny_gan):
    discriminator = partial(MLPDiscriminator, widths=(16,), spectral_norm=True)  # a pass moves u and v
    plain, checked = (tiny_gan(kind, discriminator=discriminator) for kind in (GAN, OneStageGAN))
    assert all(torch.equal(plain.state_dict()[name], value) for name, value in checked.state_dict().items())


def test_a_penalty_with_an_undeclared_gradient_is_refused(tiny_gan, tiny_data, make_trainer):
    with pytest.raises(RuntimeError, match=r"Penalty 'of_logits' .*: name \"fake\" in its `differentiates`"):
        make_trainer(1).fit(tiny_gan(OneStageGAN, penalties=[OfLogits()]), datamodule=tiny_data())


def test_two_loss_scales_are_refused(tiny_gan, tiny_data, make_trainer):
    trainer = make_trainer(1)
    trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(
        ValueError, match=r"OneStageGAN .* both networks: give --trainer.precision bf16-mixed"
    ):
        trainer.fit(tiny_gan(OneStageGAN), datamodule=tiny_data())
