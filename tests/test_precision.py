"""Mixed precision on the CPU: no stale weights, penalties in range, a loss scale for each network."""

from __future__ import annotations

import copy
from functools import partial
from itertools import pairwise

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from shared.spoiling import Spoiled
from torch.nn.functional import cosine_similarity

from litgan import GAN
from litgan.augment import DiffAugment
from litgan.callbacks import Checkpoint
from litgan.networks import DCGANDiscriminator, DCGANGenerator
from litgan.noise import Noise
from litgan.penalties import R1, R2
from litgan.precision import PerNetworkLossScale, full_float32

SGD = partial(torch.optim.SGD, lr=0.05)
PICTURES = {
    "generator": partial(DCGANGenerator, latent_dim=8, widths=(16, 8), norm="none"),
    "discriminator": partial(DCGANDiscriminator, widths=(16, 32)),
    "sample_shape": (1, 8, 8),
}


@pytest.fixture
def fit_in_float16(make_trainer, tiny_data):
    """Trains in float16 with a scaler for each network; returns the plugin."""

    def fit(gan, iterations=4, ckpt_path=None, init_scale=256.0, callbacks=(), **options):
        trainer = make_trainer(iterations, log_every_n_steps=1, callbacks=list(callbacks))
        trainer.strategy.precision_plugin = PerNetworkLossScale("cpu", init_scale=init_scale, **options)
        trainer.fit(gan, datamodule=tiny_data(), ckpt_path=ckpt_path)
        return trainer.precision_plugin

    return fit


class Opponents(GAN):
    """Keeps both networks as each of the two updates began, and what came of it."""

    def update(self, name, *arguments):
        before = copy.deepcopy((self.generator, self.discriminator))
        logs = super().update(name, *arguments)
        gradients = [parameter.grad.clone() for parameter in getattr(self, name).parameters()]
        self.__dict__.setdefault("kept", {})[name] = before, logs, gradients
        return logs


def test_the_generator_meets_the_discriminator_of_now(tiny_gan, tiny_data, make_trainer):
    """A cache of casts over both updates would show it the weights from before the discriminator's step."""
    gan = tiny_gan(Opponents, discriminator_optimizer=partial(torch.optim.SGD, lr=2.0))
    make_trainer(1, precision="bf16-mixed").fit(gan, datamodule=tiny_data())

    (generator, discriminator), logs, gradients = gan.kept["generator"]
    (_, stale), _, _ = gan.kept["discriminator"]
    latents = Noise(0, 0, 0, 8, "generator").normal(4)

    def feedback(discriminator):
        generator.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = gan.loss.generator(fake=discriminator(generator(latents))).mean()
            loss.backward()  # in here, as in Lightning's training step
        return loss.item(), torch.cat([p.grad.flatten() for p in generator.parameters()])

    loss, gradient = feedback(discriminator)
    used = torch.cat([gradient.flatten() for gradient in gradients])
    assert logs["loss/generator"].item() == pytest.approx(loss, rel=1e-6)
    assert (used - gradient).norm() < 1e-4 * gradient.norm()
    stale_loss, stale_gradient = feedback(stale)
    assert abs(stale_loss - loss) > 1e-2 * loss  # so the two comparisons above can fail
    assert (used - stale_gradient).norm() > 1e-2 * gradient.norm()


def discriminator_loss(gan, dtype):
    """What it logs and its gradient, without a Trainer."""
    real = torch.rand(8, *gan.sample_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    gan.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        value, logs = gan.discriminator_loss(real, None, Noise(0, 0, 0, 8))
    value.backward()
    return logs, torch.cat([p.grad.flatten() for p in gan.discriminator.parameters()])


@pytest.mark.parametrize("penalty", [R1(10.0), R2(10.0)], ids=repr)
def test_penalties_under_bf16_on_the_own_pass_of_the_loss(penalty, tiny_gan):
    gan = tiny_gan(penalties=[penalty], **PICTURES)
    exact, wanted = discriminator_loss(gan, torch.float32)
    passes = []
    gan.discriminator.register_forward_hook(lambda *_: passes.append(torch.is_autocast_enabled("cpu")))
    logs, gradient = discriminator_loss(gan, torch.bfloat16)
    assert passes == [True, True]
    key = f"penalty/{penalty.name}"
    assert logs[key].mean().item() == pytest.approx(exact[key].mean().item(), rel=0.01, abs=0)
    native = torch.cpu._is_avx512_bf16_supported()  # measured without: 0.9985, for every seed
    assert cosine_similarity(gradient, wanted, dim=0) > (0.999 if native else 0.998)


@pytest.mark.parametrize("penalty", [R1(10.0), R2(10.0)], ids=repr)
def test_penalties_under_float16_keep_the_range_of_float32(penalty, tiny_gan):
    gan = tiny_gan(penalties=[penalty], **PICTURES)
    with torch.no_grad():
        for parameter in list(gan.discriminator.parameters())[-2:]:
            parameter.mul_(1e-5)  # gradients of the samples far below what float16 holds
    exact, _ = discriminator_loss(gan, torch.float32)
    seen = []
    gan.discriminator.register_forward_hook(lambda _, inputs, logits: seen.append((inputs[0], logits)))
    logs, _ = discriminator_loss(gan, torch.float16)
    samples, logits = seen[-2 if penalty.name == "r1" else -1]  # reals, then the fakes of a float16 generator
    samples = samples.detach().requires_grad_()
    assert logits.dtype == samples.dtype == torch.float32
    (slope,) = torch.autograd.grad(gan.discriminator(samples).sum(), samples)
    wanted = slope.flatten(1).square().sum(1).mean().item()
    key = f"penalty/{penalty.name}"
    assert 0 < exact[key].mean() < 1e-9
    assert logs[key].mean().item() == pytest.approx(wanted, rel=1e-5, abs=0)
    assert logs["loss/discriminator"].item() == pytest.approx(exact["loss/discriminator"].item(), rel=1e-3)


def test_penalties_under_float16_differentiate_through_the_augmentation(tiny_gan):
    gan = tiny_gan(penalties=[R1(10.0)], augment=DiffAugment(), **PICTURES)
    exact, _ = discriminator_loss(gan, torch.float32)
    logs, _ = discriminator_loss(gan, torch.float16)
    assert logs["penalty/r1"].item() == pytest.approx(exact["penalty/r1"].item(), rel=1e-5)


def test_float16_learns_what_float32_learns(tiny_gan, tiny_data, make_trainer, fit_in_float16):
    options = {"generator_optimizer": SGD, "discriminator_optimizer": SGD, "penalties": [R1(0.1, interval=2)]}
    exact, half, fresh = (tiny_gan(**options) for _ in range(3))
    make_trainer(10).fit(exact, datamodule=tiny_data())
    fit_in_float16(half, 10)
    for name in ("generator", "discriminator"):
        a, b, start = (
            torch.cat([p.detach().flatten() for p in gan.get_submodule(name).parameters()])
            for gan in (exact, half, fresh)
        )
        assert (a - b).norm() < 0.02 * (a - start).norm()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("whose", "other"), [("generator", "discriminator"), ("discriminator", "generator")])
def test_an_overflow_skips_one_step_and_halves_one_scale(whose, other, fused, tiny_gan, fit_in_float16):
    adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99), fused=fused)
    gan = tiny_gan(
        loss=Spoiled(whose, 2, float("inf"), gradient=True),
        generator_optimizer=adam,
        discriminator_optimizer=adam,
    )
    steps = {name: [copy.deepcopy(gan.get_submodule(name).state_dict())] for name in (whose, other)}
    update = gan.update

    def noted(name, *arguments):
        logs = update(name, *arguments)
        steps[name].append(copy.deepcopy(gan.get_submodule(name).state_dict()))
        return logs

    gan.update = noted
    plugin = fit_in_float16(gan)
    moved = {
        name: [any(not torch.equal(a[key], b[key]) for key in a) for a, b in pairwise(diary)]
        for name, diary in steps.items()
    }
    assert moved == {whose: [True, True, False, True], other: [True] * 4}
    assert plugin.scales() == {
        f"scaler/{whose}": 128.0, f"scaler/{other}": 256.0,
        f"scaler/skipped_{whose}": 1.0, f"scaler/skipped_{other}": 0.0,
    }  # fmt: skip
    assert plugin.scales().items() <= gan.logged.items()  # logged
    assert all(parameter.isfinite().all() for parameter in gan.parameters())


@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_clipped_without_their_scale(fused, tiny_gan, fit_in_float16):
    sgd = partial(torch.optim.SGD, lr=0.05, fused=fused)
    gan = tiny_gan(generator_optimizer=sgd, discriminator_optimizer=sgd, gradient_clip_val=0.01)
    fit_in_float16(gan)
    for network in (gan.generator, gan.discriminator):
        gradients = [parameter.grad for parameter in network.parameters()]
        assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(0.01, rel=1e-3)


def test_both_scalers_live_in_the_checkpoint(tiny_gan, fit_in_float16, tmp_path):
    straight, cut, resumed = (
        tiny_gan(loss=Spoiled("discriminator", 1, float("inf"), gradient=True)) for _ in range(3)
    )
    resumed.loss.when = -1
    wanted = fit_in_float16(straight, 6, growth_interval=2)
    fit_in_float16(
        cut, 3, growth_interval=2, callbacks=[Checkpoint(every=0, minutes=0, folder=str(tmp_path))]
    )
    plugin = fit_in_float16(
        resumed, 6, growth_interval=2, init_scale=4.0, ckpt_path=tmp_path / "last.ckpt"
    )  # fmt: skip
    assert plugin.scales() == wanted.scales()
    assert wanted.scales()["scaler/skipped_discriminator"] == 1.0
    assert wanted.scales()["scaler/generator"] > wanted.scales()["scaler/discriminator"]
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("precision", "kind"), [("16-mixed", PerNetworkLossScale), ("bf16-mixed", MixedPrecision)]
)
def test_any_trainer_gets_the_scalers_that_its_precision_needs(
    precision, kind, tiny_gan, tiny_data, make_trainer
):
    trainer = make_trainer(1)
    trainer.strategy.precision_plugin = MixedPrecision(precision, "cpu")
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    assert type(trainer.precision_plugin) is kind


def test_full_float32_has_neither_autocast_nor_tf32_and_leaves_both_as_they_were():
    def found():
        return (
            torch.is_autocast_enabled("cpu"),
            torch.get_float32_matmul_precision(),
            torch.backends.cudnn.allow_tf32,
        )

    before = found()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            with full_float32(torch.device("cpu")):
                assert found() == (False, "highest", False)
            assert found() == (True, "high", before[2])
    finally:
        torch.set_float32_matmul_precision(before[1])
