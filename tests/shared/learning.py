"""A GAN that learns one Gaussian in seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from litgan import GAN
from litgan.data import Ring


def check_one_gaussian(
    tiny_gan: Callable[..., GAN], make_trainer: Callable[..., Any], iterations: int, **options: Any
) -> None:
    """It starts on the other side of the plane and ends at the Gaussian, not as a single point."""
    adam = partial(torch.optim.Adam, lr=5e-3, betas=(0.0, 0.99))
    gan = tiny_gan(generator_optimizer=adam, discriminator_optimizer=adam, ema_halflife=1000, **options)
    data = Ring(modes=1, radius=-0.75, std=0.2, batch_size=64)
    assert (gan.sample(1000).mean(0) - data.centers[0]).norm() > 1
    make_trainer(iterations).fit(gan, datamodule=data)
    samples = gan.sample(1000)
    assert (samples.mean(0) - data.centers[0]).norm() < 0.15
    assert samples.std(0).min() > 0.05
