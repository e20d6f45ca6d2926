"""Runs that are cut and resumed, compared bit for bit with runs that are not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from litgan.noise import Noise
from litgan.updates import average


class Recorder(Callback):
    """Keeps the real samples of every discriminator step, and the first batch of what comes next."""

    def __init__(self) -> None:
        self.batches: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer, gan, batch, batch_idx):
        self.batches.append(batch[0].clone())


def state_of(trainer, gan) -> dict[str, Any]:
    """All that a run's future depends on, with the next batch and the next latents themselves."""
    return {
        "weights": gan.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "clock": (gan.images_seen, gan.discriminator_updates, trainer.global_step),
        "next row": average(trainer, gan.last_logs),
        "next latents": Noise(gan.seed, gan.discriminator_updates, 0, 8, "generator").normal(4),
        "next batch": next(iter(trainer.datamodule.train_dataloader())),
    }


def same(left: Any, right: Any) -> bool:
    """Equality bit for bit of nested containers."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def assert_same(resumed: dict[str, Any], straight: dict[str, Any]) -> None:
    assert [key for key in straight if not same(straight[key], resumed[key])] == []


def player(
    tiny_gan: Callable[..., Any], tiny_data: Callable[..., Any], make_trainer: Callable[..., Any]
) -> Callable[..., Any]:
    """Of these fixtures a function that trains to so many iterations: (state, batches seen, trainer)."""

    def train(gan_options, data_options, iterations, *, ckpt_path=None, callbacks=()):
        torch.manual_seed(len(callbacks) + iterations)  # what the process drew before is of no account
        gan, data = tiny_gan(**copy.deepcopy(gan_options)), tiny_data(**data_options)
        recorder = Recorder()
        trainer = make_trainer(iterations, callbacks=[recorder, *callbacks])
        trainer.fit(gan, datamodule=data, ckpt_path=ckpt_path)
        return state_of(trainer, gan), recorder.batches, trainer

    return train


def check_six_are_three_and_three(
    train: Callable[..., Any], gan_options: dict[str, Any], data_options: dict[str, Any], folder: Path
) -> None:
    straight, batches, _ = train(gan_options, data_options, 6)
    _, before, trainer = train(gan_options, data_options, 3)
    trainer.save_checkpoint(folder / "cut.ckpt")
    resumed, after, _ = train(gan_options, data_options, 6, ckpt_path=folder / "cut.ckpt")
    assert same(before + after, batches)
    assert_same(resumed, straight)
