"""The progress bar: one bar over the whole run, with the clock, the losses and the distance."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

SHOWN = {"loss/generator": "G", "loss/discriminator": "D", "gradient/feedback": "feedback"}


class Progress(TQDMProgressBar):
    """Counts iterations and shows what was last recorded: reading it never waits for the device.

    Args:
        seconds: between two refreshes.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        super().__init__()
        self.seconds, self.refreshed = seconds, 0.0

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        bar = self.train_progress_bar
        if bar.total is None:  # once a run: data sets differ in size by 10^4, so epochs mean nothing here
            bar.total = trainer.max_steps if trainer.max_steps > 0 else None
            bar.initial = bar.n = trainer.global_step
            bar.set_description("training")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        now = time.perf_counter()
        if not self.is_disabled and now - self.refreshed > self.seconds:
            self.refreshed = now
            self.show(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The bar goes on: it counts the run, not the epoch."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.is_disabled:
            self.show(trainer, pl_module)
        super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        """Leaves the last line to the sentence that says why the run ended."""
        if self._train_progress_bar is not None:
            self.train_progress_bar.close()

    def show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        bar = self.train_progress_bar
        bar.n = trainer.global_step
        bar.set_postfix(self.get_metrics(trainer, pl_module))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        latest: dict[str, float] = pl_module.logged  # type: ignore[assignment]
        shown = {"images": f"{pl_module.images_seen:,}"}
        shown |= {short: f"{latest[key]:.3g}" for key, short in SHOWN.items() if key in latest}
        distances = (key for key in latest if key == "metric/fid" or key.startswith("metric/fd_"))
        return shown | {key.removeprefix("metric/"): f"{latest[key]:.4g}" for key in distances}
