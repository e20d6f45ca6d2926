"""What the tests of callbacks share: digits, a GAN small enough for them, and a logger that remembers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from lightning.pytorch.loggers import Logger

from litgan import GAN
from litgan.data import Digits
from litgan.networks import DCGANDiscriminator, DCGANGenerator


class Memory(Logger):
    """Keeps what it is given: `rows` of scalars, `hyperparameters` all in one."""

    name, version = "memory", "0"

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.hyperparameters: dict[str, Any] = {}

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self.rows.append(dict(metrics))

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.hyperparameters |= params

    def values(self, key: str) -> dict[int, float]:
        """{images_seen: value} of a key."""
        return {row["images_seen"]: row[key] for row in self.rows if key in row}


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def digits_gan(tiny_gan: Callable[..., GAN]) -> Callable[..., GAN]:
    """Makes a small convolutional GAN for digits, with batch and spectral normalisation: both keep state."""

    def make(**options: Any) -> GAN:
        networks = {
            "generator": partial(DCGANGenerator, latent_dim=8, widths=[8, 8]),
            "discriminator": partial(DCGANDiscriminator, widths=[8, 8], spectral_norm=True),
            "sample_shape": (1, 8, 8),
        }
        return tiny_gan(**(networks | options))

    return make


@pytest.fixture
def digits() -> Digits:
    return Digits(batch_size=8)
