"""The setups of the lab: small data sets and networks, with a distance between samples and data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from litgan.data import Digits, FashionMNIST, GANDataModule, Ring
from litgan.lab.transforms import GradientTransform, Identity, TransformedGAN
from litgan.losses import AdversarialLoss, NonSaturating
from litgan.metrics import evaluate
from litgan.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator
from litgan.penalties import R1, Penalty


@dataclass(frozen=True)
class Setup:
    """A data set with networks, hyperparameters and a distance.

    Args:
        name: of the data set.
        data: makes the data module from a seed.
        networks: factories of the generator and the discriminator.
        lr: learning rate of both networks.
        r1_weight: default weight of R1, gamma / 2.
        iterations: of a run.
        distance: between a GAN's samples and the data, >= 0.
        betas: of Adam.
    """

    name: str
    data: Callable[[int], GANDataModule]
    networks: tuple[Any, Any]
    lr: float
    r1_weight: float
    iterations: int
    distance: Callable[[TransformedGAN, GANDataModule], float]
    betas: tuple[float, float] = (0.0, 0.99)

    def train(
        self,
        transform: GradientTransform | None = None,
        *,
        seed: int = 0,
        iterations: int | None = None,
        loss: AdversarialLoss | None = None,
        penalties: Sequence[Penalty] | None = None,
        generator_optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> Result:
        """Trains a new GAN; None stands for the setup's default."""
        adam = partial(torch.optim.Adam, lr=self.lr, betas=self.betas)
        data = self.data(seed)
        gan = TransformedGAN(
            *self.networks, loss or NonSaturating(), generator_optimizer or adam, adam,
            penalties=[R1(self.r1_weight, interval=2)] if penalties is None else penalties,
            transform=transform or Identity(), sample_shape=data.sample_shape, seed=seed, ema_halflife=5000,
        )  # fmt: skip
        data.load("train")
        start = self.distance(gan, data)
        steps = self.iterations if iterations is None else iterations
        trainer = Trainer(
            max_steps=steps, max_epochs=-1, accelerator="cpu", devices=1, logger=False, barebones=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            callbacks=list(callbacks), log_every_n_steps=steps + 1, num_sanity_val_steps=0,
        )  # fmt: skip
        trainer.fit(gan, datamodule=data)
        return Result(start, self.distance(gan, data), gan)


@dataclass(frozen=True)
class Result:
    """Distances before and after training, and the GAN."""

    start: float
    end: float
    gan: TransformedGAN = field(repr=False, compare=False)


def energy_distance(*, real: Tensor, fake: Tensor) -> Tensor:
    """2 E|x - y| - E|x - x'| - E|y - y'| of points [N, D] (Székely & Rizzo 2013); 0 if equal."""
    across = torch.cdist(real, fake).mean()
    within = [torch.cdist(side, side).sum() / (len(side) * (len(side) - 1)) for side in (real, fake)]
    return (2 * across - within[0] - within[1]).clamp_min(0)


def energy_distance_to_data(gan: TransformedGAN, data: GANDataModule) -> float:
    """Energy distance between 2,000 samples and 2,000 points of the data."""
    real = torch.cat([batch for batch, _ in data.real_batches(min(2000, data.size()))])
    return energy_distance(real=real, fake=gan.sample(len(real), ema=False)).item()


def frechet_distance_to_data(gan: TransformedGAN, data: GANDataModule, extractor: str) -> float:
    """Fréchet distance between 1,500 samples and the data, in the features of a classifier."""
    report = evaluate(
        lambda first, count: gan.sample(count, first=first), data, extractor, count=1500, neighbours_count=6
    )
    return report.values[f"metric/fd_{extractor}"]


RING = Setup(
    "ring",
    lambda seed: Ring(samples=4096, batch_size=128, seed=seed),
    (
        partial(MLPGenerator, latent_dim=4, widths=(64, 64), activation="relu"),
        partial(MLPDiscriminator, widths=(64, 64), activation="relu"),
    ),
    lr=2e-3,
    r1_weight=0.01,
    iterations=1000,
    distance=energy_distance_to_data,
    betas=(0.5, 0.99),
)
DIGITS = Setup(
    "digits",
    lambda seed: Digits(batch_size=64, seed=seed),
    (
        partial(DCGANGenerator, latent_dim=32, widths=[64, 32], norm="none", initialization="he"),
        partial(DCGANDiscriminator, widths=[32, 64], initialization="he"),
    ),
    lr=2e-3,
    r1_weight=0.5,
    iterations=400,
    distance=partial(frechet_distance_to_data, extractor="digits"),
)
FASHION = Setup(
    "fashion_mnist",
    lambda seed: FashionMNIST(batch_size=64, seed=seed),
    (
        partial(DCGANGenerator, latent_dim=64, widths=[64, 32, 16], norm="none", initialization="he"),
        partial(DCGANDiscriminator, widths=[16, 32, 64], initialization="he"),
    ),
    lr=1e-3,
    r1_weight=0.5,
    iterations=250,
    distance=partial(frechet_distance_to_data, extractor="fashion"),
)
