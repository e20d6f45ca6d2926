"""A run that is cut and resumed is the run that was never cut: the same bits everywhere, on the CPU."""

from __future__ import annotations

import copy
import shutil
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from shared.resuming import assert_same, check_six_are_three_and_three, player, same, state_of
from torch import nn

from litgan.callbacks import Checkpoint
from litgan.losses import Relativistic, Wasserstein
from litgan.networks import DCGANDiscriminator, DCGANGenerator
from litgan.penalties import DRAGAN, R1, R2, WGANGP, FiniteDifferenceR1, LeCam
from litgan.schedules import Cosine, Linear, WarmUp


class Forgetful(nn.Module):
    """A critic with dropout: randomness within the networks."""

    def __init__(self, sample_shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.Dropout(0.5), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, samples: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.layers(samples)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # options of the GAN, options of the data
    "within an epoch": ({}, {"samples": 80}),
    "across an epoch": ({}, {"samples": 40}),  # 5 batches
    "at an epoch's end": ({}, {"samples": 24}),  # 3 batches
    "ragged epochs": ({}, {"samples": 39}),  # 4 batches, 7 samples left out of each epoch
    "2 steps, across epochs": ({"discriminator_steps": 2}, {"samples": 40}),
    "3 steps": ({"discriminator_steps": 3}, {"samples": 32}),
    "2 steps, at an epoch's end": ({"discriminator_steps": 2}, {"samples": 24}),
    "points drawn by a penalty": ({"loss": Wasserstein(), "penalties": [WGANGP(interval=2)]}, {}),
    "lazy penalties": ({"loss": Relativistic(), "penalties": [R1(0.1, interval=2), R2(0.1, interval=8)]}, {}),
    "schedules": (
        {
            "lr_schedule": WarmUp(20, then=Cosine(1.0, 0.1, images=60)),
            "penalties": [R1(Linear(1.0, 0.0, images=50))],
            "ema_halflife": Linear(10, 50, images=48),
        },
        {},
    ),
    "penalties that remember": ({"penalties": [LeCam(0.1)]}, {}),
    "penalties with points of their own": (
        {
            "penalties": [DRAGAN(0.1), FiniteDifferenceR1(0.1)],
        },
        {},
    ),
    "several averages": ({"extra_ema_halflives": [16, 64]}, {}),
    "dropout": ({"discriminator": Forgetful}, {}),
    "labels": ({"num_classes": 8}, {"num_classes": 8}),
    "momentum": ({"generator_optimizer": partial(torch.optim.SGD, lr=0.01, momentum=0.9)}, {}),
}


@pytest.fixture
def run(tiny_gan, tiny_data, make_trainer):
    """Trains a case to so many iterations, from the start or a checkpoint: (state, batches seen, trainer)."""
    train = player(tiny_gan, tiny_data, make_trainer)
    return lambda case, iterations, **options: train(*CASES[case], iterations, **options)


@pytest.mark.parametrize("case", CASES)
def test_six_iterations_are_three_and_three(case, tiny_gan, tiny_data, make_trainer, tmp_path):
    check_six_are_three_and_three(player(tiny_gan, tiny_data, make_trainer), *CASES[case], tmp_path)


def test_what_was_logged_before_the_cut_is_on_no_device(run, tmp_path, tiny_gan):
    """Lightning restores a GAN before it moves it to its device."""
    run("lazy penalties", 3)[2].save_checkpoint(tmp_path / "cut.ckpt")
    gan = tiny_gan(**copy.deepcopy(CASES["lazy penalties"][0]))
    gan.on_load_checkpoint(torch.load(tmp_path / "cut.ckpt", weights_only=False))
    assert {"loss/generator", "penalty/r2"} <= gan.last_logs.keys()
    assert all(isinstance(value, float) for value in gan.last_logs.values())


class Keep(Callback):
    """Copies the last checkpoint away before the iteration after `iterations` begins."""

    def __init__(self, iterations, last, to):
        self.iterations, self.last, self.to = iterations, last, to

    def on_train_batch_start(self, trainer, gan, *_):
        if trainer.global_step == self.iterations and not self.to.exists():
            shutil.copy(self.last, self.to)


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("case", ["across an epoch", "at an epoch's end", "2 steps, across epochs"])
def test_a_checkpoint_from_the_middle_of_a_run(case, cut, run, tmp_path):
    save = Checkpoint(every=1, minutes=0, folder=str(tmp_path))
    keep = Keep(cut, tmp_path / "last.ckpt", tmp_path / "cut.ckpt")
    straight, batches, _ = run(case, 6, callbacks=[save, keep])
    resumed, after, _ = run(case, 6, ckpt_path=tmp_path / "cut.ckpt")
    assert 0 < len(after) < len(batches) and same(after, batches[-len(after) :])
    assert_same(resumed, straight)


def test_resuming_twice(run, tmp_path):
    straight, _, _ = run("across an epoch", 12)
    path = None
    for iterations in (2, 5, 7, 10, 12):
        resumed, _, trainer = run("across an epoch", iterations, ckpt_path=path)
        path = tmp_path / f"{iterations}.ckpt"
        trainer.save_checkpoint(path)
    assert_same(resumed, straight)


def test_convolutions_with_norms_and_labels(tiny_gan, make_trainer, tmp_path):
    """Running statistics and power iterations are part of the state."""
    from litgan.data import Digits

    def train(iterations, ckpt_path=None):
        gan = tiny_gan(
            generator=partial(DCGANGenerator, latent_dim=4, widths=(8, 4)),
            discriminator=partial(DCGANDiscriminator, widths=(4, 8), norm="batch", spectral_norm=True),
            sample_shape=(1, 8, 8),
            num_classes=10,
            penalties=[R1(0.1)],
        )
        trainer = make_trainer(iterations)
        trainer.fit(gan, datamodule=Digits(batch_size=8, num_classes=10), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "cut.ckpt")
        return state_of(trainer, gan)

    straight = train(6)
    train(3)
    assert_same(train(6, tmp_path / "cut.ckpt"), straight)


def test_a_resumed_run_takes_the_learning_rates_of_its_recipe(tiny_gan, tiny_data, make_trainer, tmp_path):
    """The remedy that a stopped run names, lower learning rates, must be one."""
    first = make_trainer(2)
    first.fit(tiny_gan(), datamodule=tiny_data())
    first.save_checkpoint(tmp_path / "cut.ckpt")
    slower = tiny_gan(generator_optimizer=partial(torch.optim.Adam, lr=1e-5))
    second = make_trainer(3)
    second.fit(slower, datamodule=tiny_data(), ckpt_path=tmp_path / "cut.ckpt")
    rates = [optimizer.param_groups[0]["lr"] for optimizer in second.optimizers]
    assert rates == [1e-5, 1e-3]
