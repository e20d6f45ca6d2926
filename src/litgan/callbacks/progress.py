"""Progress of a run: Lightning's bar on a terminal, one line per measurement in a file."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from litgan.loggers import distance_keys

SHOWN = {"loss/generator": "G", "loss/discriminator": "D", "gradient/feedback": "feedback"}


def distances(logged: dict[str, float]) -> dict[str, str]:
    """The Fréchet distances among logged values, formatted."""
    return {key.removeprefix("metric/"): f"{logged[key]:.4g}" for key in distance_keys([logged])}


class ProgressLines(Callback):
    """Prints one line whenever a distance was measured."""

    def __init__(self) -> None:
        self.shown: dict[str, str] | None = None  # None before the first iteration of this process

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        found = distances(pl_module.logged)  # type: ignore[arg-type]
        new, self.shown = self.shown not in (None, found), found
        if new and trainer.is_global_zero:
            values = ", ".join(f"{name} {value}" for name, value in found.items())
            print(f"{pl_module.images_seen:>13,} images  {values}", flush=True)


class Progress(TQDMProgressBar):
    """One bar for the whole run: iterations, distance, images seen and losses as last logged.

    Reading logged values never waits for the device. The distance comes first: it fits into 100 columns.

    Args:
        seconds: between two refreshes.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        super().__init__()
        self.seconds, self.refreshed = seconds, 0.0

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        bar = self.train_progress_bar
        if bar.total is None:  # the first epoch of this process
            bar.total = trainer.max_steps if trainer.max_steps > 0 else None
            bar.initial = bar.n = trainer.global_step
            bar.set_description("training")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        now = time.perf_counter()
        if not self.is_disabled and now - self.refreshed > self.seconds:
            self.refreshed = now
            self.update_bar(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the bar: it counts the iterations of the run, not of the epoch."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.is_disabled:
            self.update_bar(trainer, pl_module)
        super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        """Closes the bar, so that the error is the last line."""
        if self._train_progress_bar is not None:
            self.train_progress_bar.close()

    def update_bar(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bar = self.train_progress_bar
        bar.n = trainer.global_step
        bar.set_postfix(self.get_metrics(trainer, pl_module))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        logged: dict[str, float] = pl_module.logged  # type: ignore[assignment]
        values = {short: f"{logged[key]:.3g}" for key, short in SHOWN.items() if key in logged}
        return {**distances(logged), "images": f"{pl_module.images_seen:,}", **values}
