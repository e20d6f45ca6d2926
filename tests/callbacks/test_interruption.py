"""What one process does that is told to stop; tests/test_interruption.py has whole `litgan fit` processes."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Callback

from litgan import checkpoints
from litgan.callbacks import Checkpoint, Interrupted, Interruption, interruption
from litgan.callbacks.interruption import requeue

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers():
    """The present ones; `Interrupted` ends a process and leaves them taken."""
    before = [signal.getsignal(one) for one in SIGNALS]
    yield before
    for one, handler in zip(SIGNALS, before, strict=True):
        signal.signal(one, handler)


class Send(Callback):
    """Sends signals to its own process before the given turn (0 is the first)."""

    def __init__(self, turn, *signals):
        self.turn, self.signals = turn, signals

    def on_train_batch_start(self, trainer, gan, *_):
        if gan.discriminator_updates == self.turn:
            for one in self.signals:
                os.kill(os.getpid(), one)


class Ended(Callback):
    """Whether the end of the run was reached."""

    reached = False

    def on_train_end(self, trainer, gan):
        self.reached = True


@pytest.fixture
def fit(tiny_gan, tiny_data, make_trainer):
    """Trains to so many iterations with an Interruption; returns the GAN."""

    def run(iterations, *watchers, gan=None, **options):
        gan = gan or tiny_gan()
        stop = Interruption(options.pop("max_time", None))
        path = options.pop("ckpt_path", None)
        keeper = Checkpoint(every=0, minutes=0)
        trainer = make_trainer(iterations, callbacks=[*watchers, stop, keeper], **options)
        trainer.fit(gan, datamodule=tiny_data(), ckpt_path=path)
        return gan

    return run


@pytest.mark.parametrize("turns", [1, 2])
@pytest.mark.parametrize("one", SIGNALS)
def test_stops_at_the_end_of_the_iteration_and_goes_on_to_the_same_bits(
    one, turns, fit, tiny_gan, memory, tmp_path
):
    """The signal comes in the first turn of the third iteration."""
    ended, last = Ended(), tmp_path / "checkpoints" / "last.ckpt"
    gan = tiny_gan(discriminator_steps=turns)
    with pytest.raises(Interrupted) as stop:
        fit(9, ended, Send(2 * turns, one), gan=gan, logger=memory, log_every_n_steps=1)
    assert stop.value.code == (130 if one is signal.SIGINT else 75)
    assert str(stop.value) == (
        f"Stopped by {one.name} after {24 * turns} images, saved in {last}: go on with --ckpt_path last."
    )
    saved = checkpoints.read(last)
    assert (saved["litgan"]["discriminator_updates"], saved["global_step"]) == (3 * turns, 3)
    assert list(memory.values("loss/generator")) == [8 * turns, 16 * turns, 24 * turns], (
        "the last row is there"
    )
    assert not ended.reached, "no measurements of the run's end"

    resumed = fit(9, gan=tiny_gan(discriminator_steps=turns), ckpt_path=last).state_dict()
    straight = fit(9, gan=tiny_gan(discriminator_steps=turns)).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


@pytest.mark.parametrize(
    ("signals", "winner", "code"),
    [
        ((signal.SIGUSR1, signal.SIGTERM), "SIGUSR1", 75),
        ((signal.SIGINT, signal.SIGUSR1, signal.SIGTERM), "SIGINT", 130),
    ],
    ids=["a wish to be requeued outlasts SIGTERM", "what a person stopped is not requeued"],
)
def test_the_strongest_of_several_signals_counts(signals, winner, code, fit):
    with pytest.raises(Interrupted, match=f"Stopped by {winner} after 16 images") as stop:
        fit(9, Send(1, *signals))
    assert stop.value.code == code


def test_ctrl_c_that_comes_twice_at_once_is_one(fit):
    """torchrun repeats to its processes what the terminal has sent them already."""
    with pytest.raises(Interrupted) as stop:
        fit(9, Send(2, signal.SIGINT, signal.SIGINT))
    assert stop.value.code == 130


def test_a_second_ctrl_c_interrupts_the_iteration_and_saves_the_last_whole_one(fit, tmp_path, monkeypatch):
    monkeypatch.setattr(interruption, "AT_ONCE", -1.0)
    with pytest.raises(SystemExit) as stop:  # Lightning's
        fit(9, Send(2, signal.SIGINT, signal.SIGINT))
    assert isinstance(stop.value.__context__, KeyboardInterrupt)
    assert checkpoints.read(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_a_signal_that_is_ignored_stays_ignored(fit):
    for one in SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    assert fit(4, Send(1, *SIGNALS)).images_seen == 32
    assert {signal.getsignal(one) for one in SIGNALS} == {signal.SIG_IGN}


def test_a_run_told_in_its_last_iteration_saves_and_ends(fit, tmp_path):
    """Resumed, it would have nothing left to do, and its last measurements would never be made."""

    class Saved(Ended):
        def on_train_end(self, trainer, gan):
            super().on_train_end(trainer, gan)
            self.saved = checkpoints.read(tmp_path / "checkpoints" / "last.ckpt")["global_step"]

    ended = Saved()
    fit(3, ended, Send(2, signal.SIGTERM))
    assert ended.reached and ended.saved == 3, "saved before the end's measurements"


@pytest.mark.parametrize(
    ("array", "script", "called", "said"),
    [
        ({}, "exit 0", "requeue 4711", "SLURM job 4711 is requeued"),
        ({"JOB": "47", "TASK": "3"}, "exit 0", "requeue 47_3", "SLURM job 47_3 is requeued"),
        ({}, "echo no >&2; exit 1", "requeue 4711", "could not be requeued (no), submit it again"),
        ({}, None, "", "could not be requeued ([Errno 2] No such file or directory: 'scontrol'), submit"),
    ],
)
def test_requeue(array, script, called, said, tmp_path, monkeypatch):
    calls, scontrol = tmp_path / "calls", tmp_path / "scontrol"
    calls.write_text("")
    if script:
        scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
        scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    for name, value in array.items():
        monkeypatch.setenv(f"SLURM_ARRAY_{name}_ID", value)
    assert said in requeue()
    assert calls.read_text().strip() == called


def test_max_time_counts_this_process_alone(fit, tmp_path):
    """A limit of nothing still lets each resumed process do one iteration."""
    last = tmp_path / "checkpoints" / "last.ckpt"
    for images, path in ((8, None), (16, last), (24, last)):
        with pytest.raises(Interrupted, match=f"max_time after {images} images") as stop:
            fit(9, max_time=timedelta(0), ckpt_path=path)
        assert stop.value.code == 75
    assert fit(9, max_time="00:01:00:00", ckpt_path=last).images_seen == 72


def test_afterwards_everything_is_as_before(fit, handlers):
    class Look(Callback):
        def on_train_batch_start(self, trainer, *_):
            self.trainer = trainer
            self.taken = [signal.getsignal(one) for one in SIGNALS]
            self.silenced = "_broadcast_sigterm_tensor" in vars(trainer.fit_loop.epoch_loop)

    class Break(Callback):
        def on_train_batch_end(self, trainer, gan, *_):
            raise ArithmeticError("an accident")

    look = Look()
    fit(2, look)
    assert not set(look.taken) & set(handlers) and look.silenced
    with pytest.raises(ArithmeticError, match="accident"):
        fit(2, look, Break())
    assert [signal.getsignal(one) for one in SIGNALS] == handlers
    assert "_broadcast_sigterm_tensor" not in vars(look.trainer.fit_loop.epoch_loop)
    assert "register_signal_handlers" not in vars(look.trainer._signal_connector)


def test_outside_the_main_thread_signals_are_left_alone(fit, handlers):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(fit(2).images_seen))
    thread.start()
    thread.join()
    assert seen == [16] and [signal.getsignal(one) for one in SIGNALS] == handlers


def test_needs_a_checkpoint(tiny_gan, tiny_data, make_trainer):
    with pytest.raises(ValueError, match="saves with the callback Checkpoint: add it"):
        make_trainer(2, callbacks=[Interruption()]).fit(tiny_gan(), datamodule=tiny_data())


def test_what_cannot_be_saved_is_no_orderly_stop(tiny_gan, tiny_data, make_trainer, tmp_path):
    (tmp_path / "file").write_text("no folder")
    keeper = Checkpoint(every=8, minutes=0, folder=str(tmp_path / "file"), if_unsaved="continue")
    trainer = make_trainer(9, callbacks=[Send(3, signal.SIGTERM), Interruption(), keeper])
    with pytest.raises(OSError, match=r"last.ckpt cannot be saved \(.+\): "):
        trainer.fit(tiny_gan(), datamodule=tiny_data())
    assert trainer.global_step == 4
