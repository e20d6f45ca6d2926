"""Progress of a run: a bar on a terminal, a line for each measurement where the output goes into a file."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

SHOWN = {"loss/generator": "G", "loss/discriminator": "D", "gradient/feedback": "feedback"}


def distances(logged: dict[str, float]) -> dict[str, str]:
    """The Fréchet distances among logged values, as text."""
    keys = (key for key in logged if key == "metric/fid" or key.startswith("metric/fd_"))
    return {key.removeprefix("metric/"): f"{logged[key]:.4g}" for key in keys}


class ProgressLines(Callback):
    """Prints one line each time that the distance was measured."""

    def __init__(self) -> None:
        self.shown: dict[str, str] | None = None  # None before the first iteration of this process

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        found = distances(pl_module.logged)  # type: ignore[arg-type]
        new, self.shown = self.shown not in (None, found), found
        if new and trainer.is_global_zero:
            values = ", ".join(f"{name} {value}" for name, value in found.items())
            print(f"{pl_module.images_seen:>13,} images  {values}", flush=True)


class Progress(TQDMProgressBar):
    """One bar over the whole run: iterations, the distance, images seen and losses as they were last logged.

    Reading what was logged never waits for the device. The distance comes first: 100 columns show it.

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
        """Leaves the bar as it is: it counts the run, not the epoch."""

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
        logged: dict[str, float] = pl_module.logged  # type: ignore[assignment]
        values = {short: f"{logged[key]:.3g}" for key, short in SHOWN.items() if key in logged}
        return {**distances(logged), "images": f"{pl_module.images_seen:,}", **values}
