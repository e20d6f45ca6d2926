"""Micro-batches and clipping: what they compute, and the Trainer's options that they replace."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

from litgan.augment import DiffAugment
from litgan.data import Digits
from litgan.losses import Hinge, NonSaturating, Relativistic, Wasserstein
from litgan.networks import DCGANDiscriminator, DCGANGenerator
from litgan.noise import Noise
from litgan.penalties import R1, R2, WGANGP


class Norms(Callback):
    """The norm of each gradient that an optimizer used."""

    def __init__(self):
        self.used = {"generator": [], "discriminator": []}

    def on_train_start(self, trainer, gan):
        for optimizer, norms in zip(trainer.optimizers, self.used.values(), strict=True):
            optimizer.register_step_post_hook(partial(self.note, norms))

    def note(self, norms, optimizer, *_):
        gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())


SLOW = partial(torch.optim.SGD, lr=0.02)  # Adam would blow differences in rounding up to whole steps
PENALTIES = {"lazy R1": [R1(0.5, interval=2)], "R1 and R2": [R1(0.1), R2(0.2)], "WGAN-GP": [WGANGP()]}


def assert_close(whole, split):
    for name, value in whole.state_dict().items():
        assert (split.state_dict()[name] - value).norm() <= 1e-6 * value.norm() + 1e-7, name


@pytest.mark.parametrize("loss", [NonSaturating(), Wasserstein(), Relativistic()], ids=repr)
@pytest.mark.parametrize("penalties", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_teach_what_the_whole_teaches(loss, penalties, parts, tiny_gan, tiny_data, make_trainer):
    gans = []
    for micro_batches in (1, parts):
        gans.append(tiny_gan(
            loss=loss, penalties=penalties, micro_batches=micro_batches, discriminator_steps=2,
            generator_optimizer=SLOW, discriminator_optimizer=SLOW,
        ))  # fmt: skip
        make_trainer(6).fit(gans[-1], datamodule=tiny_data())
    assert_close(*gans)
    fresh = tiny_gan().state_dict()
    moved = {name for name, value in gans[0].state_dict().items() if (value - fresh[name]).abs().max() > 1e-4}
    assert {name.partition(".")[0] for name in moved} == {"generator", "discriminator", "ema"}


def test_parts_of_pictures_with_labels(digits_gan, make_trainer):
    gans = []
    for micro_batches in (1, 2):
        seen: list[torch.Tensor] = []
        gan = digits_gan(
            generator=partial(DCGANGenerator, latent_dim=4, widths=(8, 4), norm="none"), penalties=[R1(0.1)],
            discriminator=partial(DCGANDiscriminator, widths=(4, 8)), condition=10, augment=DiffAugment(),
            micro_batches=micro_batches, generator_optimizer=SLOW, discriminator_optimizer=SLOW,
        )  # fmt: skip
        gan.discriminator.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(inputs[1]))
        make_trainer(2).fit(gan, datamodule=Digits(batch_size=8, num_classes=10))
        assert {len(labels) for labels in seen} == {8 // micro_batches}
        gans.append(gan)
    assert_close(*gans)


def test_what_is_logged_is_the_mean_over_the_parts(tiny_gan, tiny_data, make_trainer):
    records = {}
    for parts in (1, 4):
        gan = tiny_gan(micro_batches=parts, penalties=[R1(0.1)])
        make_trainer(1, logger=False, log_every_n_steps=1).fit(gan, datamodule=tiny_data())
        records[parts] = gan.logged
    assert records[4] == pytest.approx(records[1], rel=1e-5, abs=1e-7)
    assert {"loss/generator", "loss/discriminator", "logits/real", "penalty/r1"} <= records[1].keys()


def test_parts_take_their_own_slice_of_the_noise(tiny_gan, tiny_data, make_trainer):
    gan = tiny_gan(micro_batches=4)
    asked: list[Noise] = []
    generate = gan.generate
    gan.generate = lambda condition, noise: (asked.append(noise), generate(condition, noise))[1]
    make_trainer(1).fit(gan, datamodule=tiny_data())
    assert [(noise.name, noise.first, noise.count) for noise in asked] == [
        (name, first, 2) for name in ("discriminator", "generator") for first in (0, 2, 4, 6)
    ]


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        (0.01, (0.01, 0.01)),
        ({"generator": 0.02}, (0.02, None)),
        ({"generator": 1e3, "discriminator": 0.03}, (None, 0.03)),
    ],
)
def test_each_network_is_clipped_to_its_own_limit(limits, wanted, tiny_gan, tiny_data, make_trainer):
    free, clipped = Norms(), Norms()
    make_trainer(4, callbacks=[free]).fit(tiny_gan(loss=Hinge()), datamodule=tiny_data())
    gan = tiny_gan(loss=Hinge(), gradient_clip_val=limits)
    make_trainer(4, callbacks=[clipped]).fit(gan, datamodule=tiny_data())
    for name, limit in zip(("generator", "discriminator"), wanted, strict=True):
        assert len(clipped.used[name]) == 4
        assert min(free.used[name]) > 0.05
        if limit is None:
            assert min(clipped.used[name]) > 0.05
        else:
            assert clipped.used[name] == pytest.approx([limit] * 4, rel=1e-3)


@pytest.mark.parametrize(
    ("gan_options", "trainer_options", "sentence"),
    [
        ({}, {"accumulate_grad_batches": 4}, "accumulate_grad_batches is 4, .* give model.micro_batches"),
        ({}, {"gradient_clip_val": 0.5}, "gradient_clip_val is 0.5, .* give model.gradient_clip_val"),
        ({"micro_batches": 3}, {}, "micro_batches is 3, which does not divide the 8 samples"),
        ({"gradient_clip_val": -1.0}, {}, "gradient_clip_val is -1.0: give a positive norm"),
        ({"gradient_clip_val": {"critic": 1.0}}, {}, "critic: give limits for generator and discriminator"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_a_step(
    gan_options, trainer_options, sentence, tiny_gan, tiny_data, make_trainer
):
    gan = tiny_gan(**gan_options)
    with pytest.raises(ValueError, match=sentence):
        make_trainer(1, **trainer_options).fit(gan, datamodule=tiny_data())
    assert gan.discriminator_updates == 0
    torch.testing.assert_close(gan.state_dict(), tiny_gan().state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["micro_batches", "discriminator_steps"])
def test_counts_below_1_are_refused(name, tiny_gan):
    with pytest.raises(ValueError, match=f"{name} is 0: give at least 1"):
        tiny_gan(**{name: 0})
