"""Lightning's own callbacks, loggers and options of the Trainer, in real runs."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from shared.fits import PLAIN, fit
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

    wandb.teardown()  # it keeps what it has read of another test's environment
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


# -- options of the Trainer


class Batches(Callback):
    """The sums of all batches, epoch by epoch."""

    def __init__(self) -> None:
        self.epochs: list[list[float]] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.epochs.append([])

    def on_train_batch_end(
        self, trainer: Trainer, gan: GAN, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.epochs[-1].append(batch[0].double().sum().item())


def test_overfit_batches_shows_the_same_batches_in_every_epoch_and_after_a_resume(
    tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Ring], make_trainer: Callable[..., Trainer],
    tmp_path: Path,
) -> None:  # fmt: skip
    seen = Batches()
    trainer = make_trainer(5, overfit_batches=2, callbacks=[seen])
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    (first, second, third) = seen.epochs
    assert first == second and len(set(first)) == 2 and third == first[:1]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = Batches()
    make_trainer(7, overfit_batches=2, callbacks=[resumed]).fit(
        tiny_gan(), datamodule=tiny_data(), ckpt_path=tmp_path / "last.ckpt"
    )
    assert [one for epoch in resumed.epochs for one in epoch] == [first[1], first[0]]


def test_limit_train_batches_shortens_epochs(
    tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Ring], make_trainer: Callable[..., Trainer]
) -> None:
    seen = Batches()
    make_trainer(-1, max_epochs=3, limit_train_batches=2, callbacks=[seen]).fit(
        gan := tiny_gan(), datamodule=tiny_data()
    )
    assert [len(epoch) for epoch in seen.epochs] == [2, 2, 2] and gan.images_seen == 48
    make_trainer(-1, max_epochs=2, limit_train_batches=0.4).fit(gan := tiny_gan(), datamodule=tiny_data())
    assert gan.images_seen == 32
    make_trainer(-1, max_epochs=2, limit_train_batches=0).fit(gan := tiny_gan(), datamodule=tiny_data())
    assert gan.images_seen == 0


def test_a_learning_rate_scheduler_is_refused_in_one_sentence(
    tiny_gan: Callable[..., GAN], tiny_data: Callable[..., Ring], make_trainer: Callable[..., Trainer]
) -> None:
    class Scheduled(GAN):
        def configure_optimizers(self) -> Any:
            optimizers = super().configure_optimizers()
            return optimizers, [torch.optim.lr_scheduler.ExponentialLR(optimizers[0], 0.9)]

    with pytest.raises(ValueError, match=r"returns a ExponentialLR, .* give lr_schedule"):
        make_trainer(2).fit(tiny_gan(Scheduled), datamodule=tiny_data())


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """`images_seen` after each training step of any GAN."""
    seen: list[int] = []
    step = GAN.training_step

    def counted(self: GAN, *arguments: Any) -> Any:
        result = step(self, *arguments)
        seen.append(self.images_seen)
        return result

    monkeypatch.setattr(GAN, "training_step", counted)
    return seen


MEASURED = ["--realism.every=32", "--realism.count=20", "--samples.every=32", "--gradients.every=32"]


@pytest.mark.heavy
@pytest.mark.parametrize("options", [["--trainer.fast_dev_run=2"], ["--trainer.barebones=true"]])
def test_a_trial_run_leaves_nothing(options: list[str], tmp_path: Path, images: list[int]) -> None:
    """No run folder, and no checkpoint that `last` could take; also if it begins from another run."""
    with pytest.raises(ValueError, match="empty"):  # no run's folder is found
        fit(tmp_path, 3, *MEASURED, *options)
    assert images == [32, 64] if "fast" in options[0] else images == [32, 64, 96]
    assert not list(tmp_path.iterdir())
    last = fit(tmp_path, 1).checkpoint
    content, files = last.read_bytes(), sorted(tmp_path.rglob("*"))
    fit(tmp_path, 3, *MEASURED, *options, "--ckpt_path=last")
    assert last.read_bytes() == content and sorted(tmp_path.rglob("*")) == files


def test_log_every_n_steps_0_logs_measurements_alone(tmp_path: Path) -> None:
    run = fit(tmp_path, 3, *MEASURED, "--trainer.log_every_n_steps=0")
    columns = {key.partition("/")[0] for row in read_metrics(run.folder / "metrics.csv") for key in row}
    assert "metric" in columns and not columns & {"loss", "speed"} and run.checkpoint.is_file()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("logger", "file"),
    [
        ("CSVLogger", "lightning_logs/version_0/metrics.csv"),
        ("TensorBoardLogger", "lightning_logs/version_0/events*"),
        ("WandbLogger", "wandb/offline-run-*"),
    ],
)
def test_a_logger_named_on_the_command_line_is_lightnings_beside_our_file(
    logger: str, file: str, tmp_path: Path
) -> None:
    if logger == "WandbLogger":
        import wandb

        wandb.teardown()  # it keeps what it has read of another test's environment
    place = tmp_path / "logs"
    options = [f"--trainer.logger={logger}", f"--trainer.logger.save_dir={place}"]
    run = fit(tmp_path, 3, *MEASURED, *options, "--trainer.log_every_n_steps=1")
    assert list(place.glob(file))
    rows = read_metrics(run.folder / "metrics.csv")  # of every run that logs: `litgan report` reads it
    assert {"loss/generator", "metric/fd_digits"} <= rows[-1].keys() and (run.folder / "curves.png").is_file()
    if logger == "TensorBoardLogger":
        found = tensorboard(place / "lightning_logs/version_0")
        assert [step for step, _ in found["loss/generator"]] == [32, 64, 96]
        assert [step for step, _ in found["metric/fd_digits"]] == [0, 32, 64, 96]


def test_one_command_line_starts_a_run_and_resumes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: list[int]
) -> None:
    first = fit(tmp_path, 1, "--ckpt_path=last")
    assert "has a checkpoint yet: a new run starts" in capsys.readouterr().err
    second = fit(tmp_path, 2, "--ckpt_path=last")
    assert first.folder == second.folder and images == [32, 64]
    for path in (first.folder / "checkpoints").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(SystemExit):
        fit(tmp_path, 3, "--ckpt_path=last")
    assert "can be read" in capsys.readouterr().err and images == [32, 64]


def test_there_is_nothing_to_validate_where_no_run_has_a_checkpoint(complaint: Callable[..., str]) -> None:
    sentence = complaint("validate", *PLAIN, "--ckpt_path=last")
    assert "has a checkpoint: train one first" in sentence


@pytest.mark.heavy
def test_early_stopping_is_named_on_the_command_line_and_goes_on_in_a_resumed_run(
    tmp_path: Path, images: list[int]
) -> None:
    """Epochs of 2 iterations, a measurement every 3, and one at the start and the end of a run."""
    stopper = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=metric/fd_digits",
               "--trainer.callbacks.patience=3", "--trainer.callbacks.min_delta=1e9"]  # fmt: skip
    options = [*stopper, "--data.batch_size=800", "--realism.every=2400", "--realism.count=20"]
    fit(tmp_path, 4, *options)
    assert images == [800, 1600, 2400, 3200]
    fit(tmp_path, 50, *options, "--ckpt_path=last")  # two of three without an improvement: at 2,400 and 3,200
    assert images[4:] == [4000, 4800]
