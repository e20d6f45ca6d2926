"""One axis for all that is logged: Lightning's loggers and EarlyStopping on the clock `images_seen`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from litgan.precision import loss_scales

MEASURED = {"loss", "metric", "logits", "penalty", "gradient", "feedback"}  # sections of `GAN.log_scalars`


class ImagesAxis(Callback):
    """Logs the losses, and gives every logger and EarlyStopping the GAN's clock; each GAN adds it to its fit.

    Lightning counts batches. Here the step of whatever is logged, by `self.log` or by a callback, is
    `images_seen`, which also stands among the values. EarlyStopping looks at a value of `GAN.log_scalars`
    whenever it is measured, not at the end of each epoch.
    """

    def __init__(self) -> None:
        self.undo = ExitStack()  # removes what hides the methods of loggers and callbacks

    def setup(self, trainer: Trainer, gan: Any, stage: str) -> None:
        for logger in trainer.loggers:
            self.wrap(logger, "log_metrics", self.at_images_seen(gan, logger.log_metrics))
        for stopper in early_stopping(trainer):
            for hook in ("on_train_epoch_end", "on_validation_end"):
                self.wrap(stopper, hook, self.unless_measured(stopper, getattr(stopper, hook)))

    def wrap(self, owner: Any, name: str, method: Callable[..., None]) -> None:
        setattr(owner, name, method)
        self.undo.callback(delattr, owner, name)  # the instance's, which hides the class's

    def at_images_seen(self, gan: Any, log: Callable[..., None]) -> Callable[..., None]:
        def log_metrics(metrics: Mapping[str, Any], step: int | None = None) -> None:
            log({**metrics, "images_seen": gan.images_seen}, step=gan.images_seen)

        return log_metrics

    def unless_measured(self, stopper: EarlyStopping, hook: Callable[..., None]) -> Callable[..., None]:
        def check(trainer: Trainer, gan: Any) -> None:
            section = stopper.monitor.partition("/")[0]
            logged = {key.partition("/")[0] for key in gan.logged}
            awaited = section in MEASURED - logged  # in a resumed run, too; Lightning would raise an error
            if stopper.monitor not in gan.logged and not awaited:
                hook(trainer, gan)

        return check

    def on_train_batch_end(self, trainer: Trainer, gan: Any, *_: Any) -> None:
        log_losses(trainer, gan)  # before ModelCheckpoint, which Lightning puts behind all other callbacks

    def teardown(self, trainer: Trainer, gan: Any, stage: str) -> None:
        self.undo.close()


def early_stopping(trainer: Trainer) -> list[EarlyStopping]:
    return [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]


def is_logging_point(trainer: Trainer, ahead: int = 0) -> bool:
    """Whether this iteration, or the `ahead`-th after it, is logged; none is for `log_every_n_steps` 0."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (trainer.global_step + ahead) % every == 0


def log_losses(trainer: Trainer, gan: Any) -> None:
    """Logs the last losses and what belongs to them, at the end of an iteration that is logged."""
    if gan.iteration_is_complete and is_logging_point(trainer):
        gan.log_scalars({**gan.last_logs, **loss_scales(trainer)})


def publish(trainer: Trainer, values: Mapping[str, float], images_seen: int) -> None:
    """Sends measured values to loggers and `callback_metrics`; EarlyStopping looks at them; on all ranks."""
    for logger in trainer.loggers:
        logger.log_metrics({**values, "images_seen": images_seen}, step=images_seen)
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in values.items()})
    for stopper in early_stopping(trainer):
        if stopper.monitor in values and not stopper._should_skip_check(trainer):
            stopper._run_early_stopping_check(trainer)
