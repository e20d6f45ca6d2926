from __future__ import annotations

import resource
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from litgan import checkpoints
from litgan.callbacks import Checkpoint, Realism
from litgan.metrics import Report


class Scripted(Realism):
    """Finds given distances, one a measurement."""

    def __init__(self, *distances, every=8):
        super().__init__(every=every)
        self.distances = list(distances)

    def measure(self, trainer, gan):
        self.report = Report({"metric/fd_script": self.distances.pop(0)}, {})
        self.measured_at = gan.images_seen
        return self.report


class Diary(Checkpoint):
    """Remembers what it saved, and when."""

    def __init__(self, **options):
        super().__init__(**options)
        self.saved = []

    def save(self, trainer, gan, name):
        saved = super().save(trainer, gan, name)
        if saved:
            self.saved.append((name, gan.images_seen))
        return saved


class Sabotage(Callback):
    """Does something to the GAN before an iteration (0 is the first)."""

    def __init__(self, iteration, act):
        self.iteration, self.act = iteration, act

    def on_train_batch_start(self, trainer, gan, *_):
        if trainer.global_step == self.iteration:
            self.act(gan)


def clock(path):
    return checkpoints.read(path)["litgan"]["images_seen"]


@pytest.mark.parametrize(
    ("turns", "iterations", "clocks"), [(1, 7, [24, 40, 56]), (2, 5, [32, 48, 64, 80]), (1, 5, [24, 40])]
)
def test_saves_by_images_and_at_the_end(
    turns, iterations, clocks, tiny_gan, tiny_data, make_trainer, tmp_path
):
    keeper = Diary(every=20, minutes=0)
    trainer = make_trainer(iterations, callbacks=[keeper])
    trainer.fit(tiny_gan(discriminator_steps=turns), datamodule=tiny_data())
    assert keeper.saved == [("last.ckpt", each) for each in clocks]
    assert clock(tmp_path / "checkpoints" / "last.ckpt") == clocks[-1]


def test_saves_by_minutes(tiny_gan, tiny_data, make_trainer, monkeypatch):
    watch = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("litgan.callbacks.checkpoint.time", SimpleNamespace(monotonic=lambda: watch.now))
    gan = tiny_gan()
    step = gan.training_step

    def slow_step(batch, batch_idx):
        watch.now += 25.0
        return step(batch, batch_idx)

    monkeypatch.setattr(gan, "training_step", slow_step)
    keeper = Diary(every=0, minutes=1.0)
    trainer = make_trainer(8, callbacks=[keeper], log_every_n_steps=1)
    trainer.fit(gan, datamodule=tiny_data())
    assert keeper.saved == [("last.ckpt", 24), ("last.ckpt", 48), ("last.ckpt", 64)]


def test_the_best_survives_worse_ones_and_a_resume(tiny_gan, tiny_data, make_trainer, tmp_path):
    folder = tmp_path / "checkpoints"
    keeper = Diary(every=0, minutes=0)
    realism = Scripted(9.0, 5.0, 3.0, float("nan"), 4.0)  # before the first step, then each iteration
    make_trainer(4, callbacks=[realism, keeper]).fit(tiny_gan(), datamodule=tiny_data())
    assert keeper.saved == [("best.ckpt", 8), ("best.ckpt", 16), ("last.ckpt", 32)]
    assert (keeper.best_value, keeper.best_at) == (3.0, 16)

    keeper, realism = Diary(every=0, minutes=0), Scripted(3.5, 2.5)
    trainer = make_trainer(6, callbacks=[realism, keeper])
    trainer.fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=folder / "last.ckpt")
    assert keeper.saved == [("best.ckpt", 48), ("last.ckpt", 48)]
    assert clock(folder / "best.ckpt") == 48


def test_weights_that_are_not_finite_are_never_saved(tiny_gan, tiny_data, make_trainer, tmp_path):
    def poison(gan):  # the average plays no part in the losses
        next(gan.ema.parameters()).data.fill_(float("nan"))

    keeper = Diary(every=8, minutes=0)
    with pytest.raises(FloatingPointError, match="A weight became nan after 32 images: the last good"):
        make_trainer(9, callbacks=[Sabotage(3, poison), keeper]).fit(tiny_gan(), datamodule=tiny_data())
    assert clock(tmp_path / "checkpoints" / "last.ckpt") == 24
    saved = checkpoints.read(tmp_path / "checkpoints" / "last.ckpt")["state_dict"]
    assert all(value.isfinite().all() for value in saved.values())


@pytest.mark.parametrize("failing", ["discriminator", "generator"])
def test_a_run_that_breaks_leaves_its_last_whole_iteration(
    failing, tiny_gan, tiny_data, make_trainer, tmp_path, monkeypatch
):
    def break_loss(gan):
        monkeypatch.setattr(gan.loss, failing, lambda *, real, fake: fake.mean(1) * 0 + float("inf"))

    gan, keeper = tiny_gan(discriminator_steps=2), Diary(every=0, minutes=0)
    with pytest.raises(FloatingPointError, match=rf"loss/{failing} became inf after \d+ images"):
        make_trainer(9, callbacks=[Sabotage(3, break_loss), keeper]).fit(gan, datamodule=tiny_data())
    saved = checkpoints.read(tmp_path / "checkpoints" / "last.ckpt")
    found = saved["litgan"]
    assert (found["images_seen"], found["discriminator_updates"], saved["global_step"]) == (48, 6, 3)


def test_an_interrupted_run_is_saved_in_the_folder_that_is_given(tiny_gan, tiny_data, make_trainer, tmp_path):
    def interrupt(gan):
        raise KeyboardInterrupt

    keeper = Checkpoint(every=0, minutes=0, folder=str(tmp_path / "elsewhere"))
    gan = tiny_gan()
    with pytest.raises(SystemExit):
        make_trainer(9, callbacks=[Sabotage(3, interrupt), keeper]).fit(gan, datamodule=tiny_data())
    assert clock(tmp_path / "elsewhere" / "last.ckpt") == 24
    saved = checkpoints.read(tmp_path / "elsewhere" / "last.ckpt")["state_dict"]
    assert all(torch.equal(value, saved[key]) for key, value in gan.state_dict().items())


class FullDisk(Callback):
    """Refuses files of more than 1,000 bytes, as a full disk would, before some iterations."""

    def __init__(self, *iterations):
        self.iterations = iterations

    def on_train_batch_start(self, trainer, gan, *_):
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        full = trainer.global_step in self.iterations
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if full else hard, hard))


@pytest.fixture
def _disk():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("_disk")
def test_a_full_disk_stops_the_run_and_spares_what_was_saved(tiny_gan, tiny_data, make_trainer, tmp_path):
    keeper = Diary(every=8, minutes=0)
    trainer = make_trainer(9, callbacks=[FullDisk(3), keeper])
    with pytest.raises(OSError, match=r"last.ckpt cannot be saved \(File too large\): allow larger files"):
        trainer.fit(tiny_gan(), datamodule=tiny_data())
    assert trainer.global_step == 4
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert clock(tmp_path / "checkpoints" / "last.ckpt") == 24


@pytest.mark.usefixtures("_disk")
def test_a_full_disk_may_be_lived_with(tiny_gan, tiny_data, make_trainer, tmp_path, capsys):
    """The best of all falls into the time when nothing can be saved, and a lesser one comes after."""
    keeper = Diary(every=8, minutes=0, if_unsaved="continue")
    realism = Scripted(9.0, 5.0, 1.0, 2.0, 4.0)
    trainer = make_trainer(4, callbacks=[realism, FullDisk(1), keeper])
    trainer.fit(tiny_gan(), datamodule=tiny_data())
    names = ["best.ckpt", "last.ckpt", "best.ckpt", "last.ckpt", "last.ckpt"]
    assert keeper.saved == list(zip(names, [8, 8, 24, 24, 32], strict=True))
    assert (keeper.best_value, keeper.best_at) == (2.0, 24)
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].split(" cannot")[0] for line in said if "Training goes on." in line] == [
        f"The checkpoint {tmp_path / 'checkpoints' / name}" for name in ("best.ckpt", "last.ckpt")
    ]


@pytest.mark.usefixtures("_disk")
def test_the_last_save_of_a_run_must_succeed(tiny_gan, tiny_data, make_trainer):
    callbacks = [FullDisk(2), Diary(every=0, minutes=0, if_unsaved="continue")]
    with pytest.raises(OSError, match="cannot be saved"):
        make_trainer(3, callbacks=callbacks).fit(tiny_gan(), datamodule=tiny_data())
