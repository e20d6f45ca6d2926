"""Failures provoked on purpose: each state is detected soon, none in healthy runs, and roll-backs help."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from litgan.data import Digits, Ring
from litgan.diagnosis import Diagnosis
from litgan.losses import Minimax, Wasserstein
from litgan.metrics import evaluate
from litgan.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from litgan.penalties import R1
from litgan.recipe import Recipe

CONFIGS = Path(__file__).parents[2] / "configs"

RATE = 2e-3
MLPS = {
    "generator": partial(MLPGenerator, latent_dim=4, widths=(64, 64), activation="relu"),
    "discriminator": partial(MLPDiscriminator, widths=(64, 64), activation="relu"),
    "sample_shape": (2,), "penalties": [R1(0.01, interval=2)],
}  # fmt: skip
CONVOLUTIONS = {
    "generator": partial(DCGANGenerator, latent_dim=32, widths=[32, 16], norm="none", initialization="he"),
    "discriminator": partial(DCGANDiscriminator, widths=[16, 32], initialization="he"),
    "sample_shape": (1, 8, 8), "penalties": [R1(0.5, interval=2)],
}  # fmt: skip


class Single(Ring):
    """A single point, repeated; the test split is the ring's."""

    def read(self, split):
        samples, labels = super().read(split)
        return (samples, labels) if split == "test" else (samples[:1].expand(len(samples), 2), labels)


class Leaking(Digits):
    """The training split carries a mark in a corner, which identifies it."""

    splits = ("train", "test")

    def read(self, split):
        samples, labels = super().read("train")
        if split == "test":
            return samples[1500:], labels[1500:]
        marked = samples[:1500].clone()
        marked[..., 0, 0] = 255
        return marked, labels[:1500]


class Shift(nn.Module):
    """G(z) = mean + z / 10: a generator that can only shift."""

    latent_dim = 2

    def __init__(self, sample_shape, num_classes=0):
        super().__init__()
        self.mean = nn.Parameter(torch.ones(sample_shape))

    def forward(self, latents, labels=None):
        return self.mean + latents / 10


class Bowl(nn.Module):
    """D(x) = offset - |x|^2: a discriminator of a Gaussian around the origin."""

    def __init__(self, sample_shape, num_classes=0):
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, samples, labels=None):
        return self.offset - samples.square().sum(1, keepdim=True)


def ring(**options):
    return Ring(samples=4096, batch_size=64, **options)


def digits32():
    return Digits(batch_size=32)


@pytest.fixture
def train(tiny_gan, make_trainer):
    """Trains for some iterations, diagnosed every 2,000 images; returns the GAN and its Diagnosis."""

    def run(game, iterations, data, *, generator=1.0, trained=None, diagnosis=None, **options):
        betas = (0.5 if game is MLPS else 0.0, 0.99)
        rates = {"generator_optimizer": RATE * generator, "discriminator_optimizer": RATE}
        adams = {name: partial(torch.optim.Adam, lr=rate, betas=betas) for name, rate in rates.items()}
        own = copy.deepcopy(game)  # a roll-back changes its penalties
        gan = tiny_gan(**own | adams | {"ema_halflife": 5000} | options)
        if trained is not None:
            gan.discriminator.load_state_dict(trained)
        diagnosis = diagnosis or Diagnosis(every=2000)
        make_trainer(iterations, callbacks=[diagnosis]).fit(gan, datamodule=data)
        return gan, diagnosis

    return run


def found_after(diagnosis, *names):
    """Images seen until the first of these states."""
    found = [at for at, name in diagnosis.history if name in names]
    assert found, f"{diagnosis.history} instead of {names}"
    return found[0]


@pytest.mark.train
def test_a_generator_that_learns_a_hundred_times_too_fast(train):
    _, diagnosis = train(MLPS, 110, ring(), generator=100)
    assert found_after(diagnosis, "VANISHED", "COLLAPSED") < 7_000
    for seed in (0, 1, 2):
        _, diagnosis = train(CONVOLUTIONS, 260, digits32(), generator=100, seed=seed)
        assert found_after(diagnosis, "DIVERGED", "COLLAPSED", "OVERPOWERED") < 8_100


@pytest.mark.train
@pytest.mark.parametrize(
    ("game", "iterations", "data", "options", "state", "images"),
    [
        (MLPS, 100, ring, {"generator": 0}, "VANISHED", 6_200),
        (CONVOLUTIONS, 200, digits32, {"generator": 0}, "VANISHED", 6_200),
        (CONVOLUTIONS, 12, digits32, {"discriminator_steps": 20, "penalties": []}, "OVERPOWERED", 7_000),
        (MLPS, 200, partial(Single, samples=4096, batch_size=64), {}, "MEMORIZING", 9_000),
        (CONVOLUTIONS, 320, partial(Leaking, batch_size=32), {}, "MEMORIZING", 10_000),
    ],
    ids=[
        "frozen generator, ring",
        "frozen generator, digits",
        "too many steps",
        "one sample",
        "marked reals",
    ],
)
def test_a_failure_is_detected_soon(game, iterations, data, options, state, images, train):
    _, diagnosis = train(game, iterations, data(), **options)
    assert found_after(diagnosis, state) < images


@pytest.mark.train
def test_a_saturating_loss_against_a_trained_discriminator(train):
    """With SGD, since Adam compensates for small gradients."""
    trained, _ = train(CONVOLUTIONS, 300, digits32(), generator=0, penalties=[], diagnosis=Diagnosis(every=0))
    _, diagnosis = train(
        CONVOLUTIONS, 200, digits32(), loss=Minimax(), penalties=[],
        trained=trained.discriminator.state_dict(), generator_optimizer=partial(torch.optim.SGD, lr=1e-2),
    )  # fmt: skip
    assert found_after(diagnosis, "SATURATED") < 7_000


def test_steps_that_undo_each_other(tiny_gan, make_trainer, memory):
    """Descent on |mean|^2 at rate 0.98 is mean <- -0.96 mean + noise: steps correlate as -(1 + 0.96) / 2."""
    gan = tiny_gan(
        generator=Shift, generator_optimizer=partial(torch.optim.SGD, lr=0.98), loss=Wasserstein(),
        discriminator=Bowl, discriminator_optimizer=partial(torch.optim.SGD, lr=0.0),
    )  # fmt: skip
    diagnosis = Diagnosis(every=640)
    make_trainer(120, callbacks=[diagnosis], logger=memory).fit(
        gan, datamodule=Ring(samples=640, batch_size=64)
    )
    assert found_after(diagnosis, "OSCILLATING") == 3 * 640
    step_cosine = list(memory.values("diagnostics/step_cosine").values())
    assert sum(step_cosine) / len(step_cosine) < -0.8


def test_logits_that_explode(train):
    """A critic without a penalty, whose loss is unbounded."""
    wild = partial(torch.optim.Adam, lr=1.0)
    options = {"loss": Wasserstein(), "penalties": [], "discriminator_optimizer": wild}
    _, diagnosis = train(MLPS, 20, ring(), diagnosis=Diagnosis(every=256), **options)
    assert found_after(diagnosis, "DIVERGED") < 2_000


@pytest.mark.train
@pytest.mark.parametrize(("name", "every", "iterations"), [("ring", 4000, 300), ("digits", 1000, 250)])
def test_no_false_alarm_in_a_healthy_recipe(name, every, iterations, tmp_path):
    recipe = Recipe([
        "--config", str(CONFIGS / f"{name}.yaml"), f"--trainer.max_steps={iterations}",
        f"--trainer.default_root_dir={tmp_path}", "--trainer.logger=false", f"--health.every={every}",
        "--trainer.enable_progress_bar=false", "--samples.every=0", "--trainer.accelerator=cpu",
    ])  # fmt: skip
    recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule)
    (diagnosis,) = (one for one in recipe.trainer.callbacks if isinstance(one, Diagnosis))
    assert diagnosis.measurements >= 15 and diagnosis.history == []


def take(gan, first, count):
    return gan.sample(count, first=first)


def fd_digits(gan):
    """Fréchet distance of 1,500 samples to digits."""
    samples = partial(take, gan)
    report = evaluate(samples, digits32(), "digits", count=1500, neighbours_count=6)
    return report.values["metric/fd_digits"]


@pytest.mark.train
@pytest.mark.parametrize(
    ("iterations", "spoilt", "factor"),
    [(600, {"generator": 100}, 1.5), (300, {"discriminator_steps": 10, "penalties": []}, 1.2)],
    ids=["rate far too large", "overpowered discriminator"],
)
def test_a_roll_back_rescues_digits(iterations, spoilt, factor, train):
    """With too many steps the distance also ends within 1.5 times the healthy one, but farther."""
    saving = Diagnosis(every=2000, policy="rollback")
    runs = {
        "healthy": train(CONVOLUTIONS, iterations, digits32()),
        "lost": train(CONVOLUTIONS, iterations, digits32(), **spoilt),
        "saved": train(CONVOLUTIONS, iterations, digits32(), **spoilt, diagnosis=saving),
    }
    distances = {name: fd_digits(gan) for name, (gan, _) in runs.items()}
    print(distances, saving.history, saving.scaling)
    assert 1 <= saving.rollbacks <= 3
    assert distances["saved"] < factor * distances["healthy"] < distances["lost"]


@pytest.mark.train
def test_a_roll_back_rescues_the_ring_from_a_rate_far_too_large(train):
    """The ring's final distance varies between seeds: the median of three counts."""
    real = torch.cat([samples for samples, _ in ring().real_batches(4000)])

    def distance(**options):
        gan, _ = train(MLPS, 800, ring(), **options)
        fake = gan.sample(4000)
        within = [torch.cdist(side, side).mean() for side in (real, fake)]
        return (2 * torch.cdist(real, fake).mean() - sum(within)).clamp_min(0).item()  # the energy distance

    ratios = []
    for seed in range(3):
        saving = Diagnosis(every=2000, policy="rollback")
        healthy, saved = distance(seed=seed), distance(generator=100, diagnosis=saving, seed=seed)
        print(healthy, saved, saving.history, saving.scaling)
        assert 1 <= saving.rollbacks <= 3 and saved < 0.1
        ratios.append(saved / healthy)
    assert sorted(ratios)[1] < 1.5
    assert distance(generator=100) > 1
