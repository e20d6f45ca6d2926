"""A run that is cut and resumed is the run that was never cut: the same bits everywhere, on the CPU."""

from __future__ import annotations

import copy
import shutil
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from shared.resuming import assert_same, check_six_are_three_and_three, player, same
from torch import nn

from litgan.callbacks import Checkpoint
from litgan.data import Digits
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
    "labels": ({"condition": 8}, {"num_classes": 8}),
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
    options = {
        "generator": partial(DCGANGenerator, latent_dim=4, widths=(8, 4)),
        "discriminator": partial(DCGANDiscriminator, widths=(4, 8), norm="batch", spectral_norm=True),
        "sample_shape": (1, 8, 8), "condition": 10, "penalties": [R1(0.1)],
    }  # fmt: skip
    train, data = player(tiny_gan, Digits, make_trainer), {"batch_size": 8, "num_classes": 10}
    check_six_are_three_and_three(train, options, data, tmp_path)


@pytest.fixture
def resumed(tiny_gan, tiny_data, make_trainer, tmp_path):
    """The optimizers after three iterations, of which two were before the options changed, and their GAN."""

    def run(before, after):
        for iterations, options, path in ((2, before, None), (3, after, tmp_path / "cut.ckpt")):
            trainer, gan = make_trainer(iterations), tiny_gan(**options)
            trainer.fit(gan, datamodule=tiny_data(), ckpt_path=path)
            trainer.save_checkpoint(tmp_path / "cut.ckpt")
        return trainer.optimizers, gan

    return run


def adam(**options):
    return {"generator_optimizer": partial(torch.optim.AdamW, **({"lr": 1e-3} | options))}


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 1e-5},
        {"betas": (0.5, 0.6)},
        {"eps": 0.1},
        {"weight_decay": 0.5},
        {"foreach": False},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_resumed_run_takes_the_optimizers_options_of_its_recipe(change, resumed):
    """The remedy that a stopped run names, lower learning rates, must be one; and what is taken acts."""
    ((name, value),) = change.items()
    (first, second), gan = resumed(adam(), adam(**change))
    assert first.param_groups[0][name] == value and second.param_groups[0]["lr"] == 1e-3
    assert next(iter(first.state.values()))["step"] == 3, "the state is the checkpoint's"
    unchanged = resumed(adam(), adam())[1].state_dict()
    same = all(
        torch.equal(unchanged[key], one) for key, one in gan.generator.state_dict(prefix="generator.").items()
    )
    assert same == (name == "foreach")


class Counting(torch.optim.SGD):
    """Keeps a state in its groups, as some optimizers do."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr)
        self.param_groups[0]["count"] = 0

    def step(self, closure=None):
        self.param_groups[0]["count"] += 1
        return super().step(closure)


def test_but_not_the_state_that_an_optimizer_keeps_among_its_options(resumed):
    options = {"discriminator_optimizer": Counting}
    (_, counting), _ = resumed(options, options)
    assert counting.param_groups[0]["count"] == 3


def test_options_that_need_another_state_are_one_sentence(resumed):
    with pytest.raises(ValueError, match="AdamW has no max_exp_avg_sq"):
        resumed(adam(), adam(amsgrad=True))
    resumed(adam(amsgrad=True), adam())


@pytest.mark.parametrize("other", [partial(torch.optim.SGD, lr=0.1), partial(torch.optim.Adam, lr=1e-3)])
def test_another_class_of_optimizer_is_one_sentence(other, resumed):
    with pytest.raises(ValueError, match=rf"'AdamW', 'Adam'.*{other.func.__name__}.*--init_from") as refused:
        resumed(adam(), {"generator_optimizer": other})
    assert "\n" not in str(refused.value)
