"""What a run tells the world: every scalar and picture, to every logger, over one x axis: `images_seen`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from litgan.loggers import WandbLogger
from litgan.media import Media


def record(trainer: Trainer, values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Logs scalars at the present `images_seen`; tensors are averaged over the ranks, in one transfer.

    Raises:
        FloatingPointError: if a loss is not finite.
    """
    gan: Any = trainer.lightning_module
    numbers = averaged(trainer, values)
    for name, value in numbers.items():
        if name.startswith("loss/") and not math.isfinite(value):
            raise FloatingPointError(not_finite(name, value, gan.images_seen))
    gan.latest |= numbers
    publish(trainer, numbers)
    return numbers


def averaged(trainer: Trainer, values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Numbers as they are, and the mean of each tensor over its elements and the ranks, in one transfer."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    numbers = {name: float(value) for name, value in values.items() if not isinstance(value, Tensor)}
    if not tensors:
        return numbers
    stacked = torch.stack([value.float().mean() for value in tensors.values()])
    means = trainer.strategy.reduce(stacked, reduce_op="mean")
    return numbers | dict(zip(tensors, means.tolist(), strict=True))


def publish(trainer: Trainer, values: Mapping[str, Any]) -> None:
    """Hands values (scalars, or a logger's own media objects) to every logger, with the x axis."""
    gan: Any = trainer.lightning_module
    for logger in trainer.loggers:
        logger.log_metrics({**values, "images_seen": gan.images_seen}, step=gan.images_seen)


def not_finite(name: str, value: float, images_seen: int) -> str:
    """The sentence with which a run stops."""
    return (
        f"{name} became {value} after {images_seen:,} images: the last good checkpoint is kept; "
        "resume from it with lower learning rates, a larger penalty or --trainer.precision 32."
    )


def publish_picture(trainer: Trainer, name: str, picture: Tensor, media: Media | None = None) -> None:
    """Sends a picture, uint8 [H, W, 3], to every W&B logger, with what plays the media that it shows."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            players = {} if media is None else media.players()
            shown = {f"{name}/{kind}": player for kind, player in players.items()}
            shown |= {name: wandb.Image(picture.cpu().numpy())}
            logger.log_metrics({**shown, "images_seen": trainer.lightning_module.images_seen})


@contextmanager
def aside(gan: Any) -> Iterator[None]:
    """Time spent in here is no training time: the throughput callback leaves it out."""
    start = time.perf_counter()
    try:
        yield
    finally:
        gan.seconds_aside += time.perf_counter() - start
