"""Lightning's own callbacks, loggers and options of the Trainer, in real runs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from litgan import GAN
from litgan.callbacks import Feedback, Realism
from litgan.data import Digits, Ring
from litgan.loggers import MetricsFile, read_metrics


class Mine(GAN):
    """Logs a value of its own in its step."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        logs = super().training_step(batch, batch_idx)
        self.log("mine/step", float(batch_idx))
        return logs


class Foreign(Callback):
    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: Any) -> None:
        gan.log("foreign/images", float(gan.images_seen))


def tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar."""
    events = EventAccumulator(str(folder)).Reload()
    return {key: [(e.step, e.value) for e in events.Scalars(key)] for key in events.Tags()["scalars"]}


def test_what_a_subclass_or_a_callback_logs_reaches_every_logger_at_images_seen(
    tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Ring], make_trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> None:  # fmt: skip
    loggers = [
        MetricsFile(tmp_path / "metrics.csv"),
        CSVLogger(tmp_path, "own"),
        TensorBoardLogger(tmp_path, "board"),
    ]
    callbacks = [Foreign(), LearningRateMonitor("step")]
    trainer = make_trainer(6, logger=loggers, log_every_n_steps=2, callbacks=callbacks)
    trainer.fit(tiny_gan(Mine), datamodule=tiny_data())
    ours = read_metrics(tmp_path / "metrics.csv")
    with (Path(loggers[1].log_dir) / "metrics.csv").open() as file:
        theirs = list(csv.DictReader(file))
    board = tensorboard(Path(loggers[2].log_dir))
    for key in ("mine/step", "foreign/images", "loss/generator", "loss/discriminator"):
        assert [row["images_seen"] for row in ours if key in row] == [16, 32, 48], key
        assert [int(row["step"]) for row in theirs if row[key]] == [16, 32, 48], key
        assert [step for step, _ in board[key]] == [16, 32, 48], key
    assert [(row["images_seen"], row["lr-Adam"]) for row in ours if "lr-Adam" in row] == [
        (8 * done, 1e-3) for done in (1, 3, 5)
    ], "at the start of the iterations that are logged"
    assert [step for step, _ in board["lr-Adam-1"]] == [8, 24, 40]
    assert board["foreign/images"] == [(16, 16), (32, 32), (48, 48)]


@pytest.mark.spawn  # W&B's own process
def test_lightnings_wandb_logger_has_images_seen_as_its_axis(
    tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Ring], make_trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> None:  # fmt: skip
    import wandb
    from test_loggers import history

    logger = WandbLogger(save_dir=tmp_path, offline=True)
    trainer = make_trainer(
        4, logger=logger, log_every_n_steps=2, callbacks=[Foreign(), LearningRateMonitor("step")]
    )
    trainer.fit(tiny_gan(Mine), datamodule=tiny_data())
    wandb.finish()
    wandb.teardown()  # its files are written in the background
    rows = history(tmp_path)
    assert all(row["images_seen"] == row["trainer/global_step"] for row in rows)
    for key in ("mine/step", "foreign/images", "loss/generator"):
        assert [row["images_seen"] for row in rows if key in row] == [16, 32], key
    assert [row["images_seen"] for row in rows if "lr-Adam" in row] == [8, 24]


class Values(Callback):
    """What `callback_metrics` holds when another callback is called."""

    def __init__(self) -> None:
        self.found: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.found.append({key: value.item() for key, value in trainer.callback_metrics.items()})


def test_losses_and_distances_stand_in_callback_metrics_from_the_first_measurement_on(
    digits_gan: Callable[..., GAN], digits: Digits, make_trainer: Callable[..., Trainer]
) -> None:
    values, realism = Values(), Realism("digits", every=16, count=20)
    trainer = make_trainer(4, log_every_n_steps=2, callbacks=[realism, values])
    trainer.fit(digits_gan(), datamodule=digits)
    assert ["metric/fd_digits" in found for found in values.found] == [True] * 4, "the first at step 0"
    assert ["loss/generator" in found for found in values.found] == [False, False, True, True]
    assert {"loss/discriminator", "metric/kid"} <= trainer.callback_metrics.keys()


def test_model_checkpoint_on_a_loss_saves_with_the_loss_of_its_iteration(
    tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Ring], make_trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> None:  # fmt: skip
    keeper = ModelCheckpoint(
        tmp_path, "{step}", monitor="loss/generator", every_n_train_steps=2, save_top_k=9
    )
    csv_file = MetricsFile(tmp_path / "metrics.csv")
    trainer = make_trainer(
        6, logger=csv_file, log_every_n_steps=2, callbacks=[keeper], enable_checkpointing=True
    )
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    losses = [row["loss/generator"] for row in read_metrics(tmp_path / "metrics.csv")]
    saved = {Path(path).stem: value.item() for path, value in keeper.best_k_models.items()}
    assert saved == pytest.approx({f"step={2 * n}": loss for n, loss in enumerate(losses, 1)})


def test_early_stopping_on_a_distance_counts_measurements(
    digits_gan: Callable[..., GAN], make_trainer: Callable[..., Trainer]
) -> None:
    """Epochs of 2 batches, a measurement every 3: after the one at step 0, two without an improvement."""
    data = Digits(batch_size=800)
    stopper = EarlyStopping("metric/fd_digits", patience=2, min_delta=1e9)
    realism = Realism("digits", every=2400, count=20)
    trainer = make_trainer(50, callbacks=[stopper, realism])
    trainer.fit(gan := digits_gan(), datamodule=data)
    assert gan.images_seen == 2 * 2400 and stopper.wait_count == 2 and trainer.global_step == 6


@pytest.mark.parametrize("monitor", ["loss/generator", "feedback/norm"])
def test_early_stopping_waits_for_a_first_value_and_stops(
    monitor: str, tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Ring],
    make_trainer: Callable[..., Trainer],
) -> None:  # fmt: skip
    stopper = EarlyStopping(monitor, patience=1, min_delta=1e9)
    feedback = Feedback(every=8, count=4)
    trainer = make_trainer(50, callbacks=[stopper, feedback], log_every_n_steps=7)
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    assert trainer.global_step == (14 if monitor.startswith("loss") else 2)


def test_early_stopping_on_what_is_never_measured_says_so(
    tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Ring], make_trainer: Callable[..., Trainer]
) -> None:
    trainer = make_trainer(50, callbacks=[EarlyStopping("loss/typo")], log_every_n_steps=1)
    with pytest.raises(RuntimeError, match="loss/typo"):
        trainer.fit(tiny_gan(), datamodule=tiny_data())


def test_early_stopping_on_a_value_of_ones_own_keeps_lightnings_epochs(
    tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Ring], make_trainer: Callable[..., Trainer]
) -> None:
    class Epochs(Callback):
        def on_train_epoch_end(self, trainer: Trainer, gan: GAN) -> None:
            gan.log("mine", 1.0)

    trainer = make_trainer(50, callbacks=[Epochs(), EarlyStopping("mine", patience=2)])
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    assert trainer.current_epoch == 3
