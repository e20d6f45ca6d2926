"""Checkpoints: the last state, by images and by minutes, and the best by the realism metric.

Lightning's ModelCheckpoint counts optimizer steps, may save between the discriminator steps of an iteration,
saves weights that are not finite, and leaves the other ranks waiting when one cannot write.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint as LightningCheckpoint

from litgan.callbacks.realism import Realism
from litgan.callbacks.throughput import untimed
from litgan.files import warn
from litgan.gan import GAN
from litgan.options import check_counts
from litgan.resuming import restoring
from litgan.updates import check_finite


class Checkpoint(LightningCheckpoint):
    """Keeps `last.ckpt` and `best.ckpt` in the run's folder, always of complete iterations.

    Non-finite weights are never saved: `last.ckpt` stays what was last good. Nor is anything saved before
    the state is restored and an iteration has ended in this process.

    Args:
        every: images between two saves of the last state, 0 for never.
        minutes: wall-clock minutes after which it is saved in any case, 0 for never.
        folder: where to save; None for the run's own folder.
        if_unsaved: whether the run stops, or warns and continues, if a checkpoint cannot be written, e.g. on
            a full disk. The last save of a run must succeed in any case.

    Raises:
        FloatingPointError: while training, if a weight is not finite when it is to be saved.
        OSError: while training, on every rank, if a checkpoint cannot be written; the earlier one is intact.
    """

    def __init__(
        self,
        every: int = 100_000,
        minutes: float = 10.0,
        folder: str | None = None,
        if_unsaved: Literal["stop", "continue"] = "stop",
    ) -> None:
        check_counts("checkpoint.", least=0, every=every, minutes=minutes)
        self.every, self.minutes, self.folder, self.if_unsaved = every, minutes, folder, if_unsaved
        self.saved_at = -1  # images_seen of last.ckpt
        self.best_value: float | None = None
        self.best_at = -1  # images_seen of best.ckpt
        self.last_save_time = time.monotonic()
        self.last_iteration = (0, 0)  # images_seen and discriminator_updates when it ended
        self.started = False  # whether training goes on, from a completely restored state

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.last_save_time, self.started = time.monotonic(), True
        self.saved_at, self.last_iteration = gan.images_seen, (gan.images_seen, gan.discriminator_updates)

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if not gan.iteration_is_complete:
            return
        self.last_iteration = (gan.images_seen, gan.discriminator_updates)
        self.save_best(trainer, gan)
        if gan.is_due(self.every) or self.minutes_elapsed(trainer):
            self.save_last(trainer, gan)

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        self.if_unsaved = "stop"  # there is no later save
        self.save_now(trainer, gan)
        self.started = False

    def on_exception(self, trainer: Trainer, gan: GAN, exception: BaseException) -> None:
        """Saves the last complete iteration, if the weights are finite and no other rank may hang.

        A resumed run repeats an iteration that was cut short, with a discriminator that may have taken some
        of its steps already.
        """
        started, self.started = self.started, False
        if not started or trainer.world_size > 1:
            return
        if gan.iteration_is_complete and gan.discriminator_updates > self.last_iteration[1]:
            # Another callback failed, before this one was called.
            self.last_iteration = (gan.images_seen, gan.discriminator_updates)
        if self.last_iteration[0] == self.saved_at:
            return
        gan.images_seen, gan.discriminator_updates = self.last_iteration
        self.if_unsaved = "stop"  # there is no later save
        if is_finite(gan):
            try:
                self.save_last(trainer, gan)
            except OSError as error:
                if str(error) != str(exception):  # which stays the reason
                    warn(str(error))

    def save_now(self, trainer: Trainer, gan: GAN) -> None:
        """Saves the present state unless it is saved."""
        self.save_best(trainer, gan)
        if self.saved_at != gan.images_seen:
            self.save_last(trainer, gan)

    def minutes_elapsed(self, trainer: Trainer) -> bool:
        """Whether it is time to save, by rank zero's clock; False except at logging points."""
        if not self.minutes or trainer.global_step % (trainer.log_every_n_steps or 50):
            return False
        return bool(trainer.strategy.broadcast(time.monotonic() - self.last_save_time > 60.0 * self.minutes))

    def save_best(self, trainer: Trainer, gan: GAN) -> None:
        """Saves `best.ckpt` if the realism callback has just measured the smallest distance so far."""
        realism = next((callback for callback in trainer.callbacks if isinstance(callback, Realism)), None)
        if realism is None or realism.measured_at != gan.images_seen or realism.monitor is None:
            return
        value = realism.report.values[realism.monitor]  # type: ignore[union-attr]
        if value < (math.inf if self.best_value is None else self.best_value):
            earlier = self.best_value, self.best_at
            self.best_value, self.best_at = value, gan.images_seen
            if not self.save(trainer, gan, "best.ckpt"):
                self.best_value, self.best_at = earlier

    def save_last(self, trainer: Trainer, gan: GAN) -> None:
        self.last_save_time = time.monotonic()
        self.saved_at = gan.images_seen if self.save(trainer, gan, "last.ckpt") else -1

    def save(self, trainer: Trainer, gan: GAN, name: str) -> bool:
        """Whether it was saved, the same on all ranks; a `fast_dev_run` saves nothing."""
        if trainer.fast_dev_run:
            return True
        if not is_finite(gan):
            check_finite("A weight", math.nan, gan.images_seen)
        failure = None
        with untimed(gan):
            try:
                trainer.save_checkpoint(self.path(trainer, name), weights_only=False)  # or Lightning warns
            except OSError as error:
                failure = str(error)
                trainer.strategy.barrier("Trainer.save_checkpoint")  # where the other ranks wait
            failure = trainer.strategy.broadcast(failure)
        if failure and self.if_unsaved == "stop":
            raise OSError(failure)
        if failure:
            warn(f"{failure} Training goes on.")
        return not failure

    def path(self, trainer: Trainer, name: str) -> Path:
        return (Path(self.folder) if self.folder else Path(trainer.default_root_dir) / "checkpoints") / name

    def state_dict(self) -> dict[str, Any]:
        return {"best_value": self.best_value, "best_at": self.best_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        with restoring("Checkpoint"):
            value, self.best_at = state_dict["best_value"], int(state_dict["best_at"])
            self.best_value = None if value is None else float(value)


def is_finite(gan: GAN) -> bool:
    """Whether every weight is finite; one transfer from the device."""
    norms = torch._foreach_norm([parameter.detach() for parameter in gan.parameters()], ord=1)
    return bool(torch.stack([norm.float() for norm in norms]).isfinite().all())
