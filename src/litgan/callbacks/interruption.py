"""Interruption: a run that gets a signal saves at the end of its iteration and exits.

This replaces Lightning's signal handling, which broadcasts from inside the handler, so that a signal to one
rank alone hangs the run; waits for the device before each batch; and under SLURM saves in the middle of an
iteration. Its Timer counts the whole run: what it stopped would stop at once when resumed.
"""

from __future__ import annotations

import math
import os
import signal
import stat
import subprocess
import threading
import time
from contextlib import ExitStack, suppress
from datetime import timedelta
from enum import IntEnum
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Timer

from litgan.axis import log_losses
from litgan.callbacks.checkpoint import Checkpoint
from litgan.gan import GAN

STOPPED = 75  # exit code; EX_TEMPFAIL of BSD's sysexits.h: try again later
CANCELLED = 130  # exit code; what shells make of SIGINT
AT_ONCE = 1.0  # seconds in which two SIGINTs are one: torchrun repeats that of the terminal


class Reason(IntEnum):
    """Why to stop. The largest wins: SIGUSR1 before SIGTERM asks to be requeued, and nothing restarts by
    itself what a person stopped with Ctrl-C."""

    NONE, MAX_TIME, SIGHUP, SIGTERM, SIGUSR1, SIGINT = range(6)


class Interrupted(SystemExit):
    """The run stopped before its end and is saved: `--ckpt_path last` continues it.

    The exit code is 75, after Ctrl-C 130; 0 in processes that Lightning launched, which takes any other code
    for a crash and kills the run.
    """

    code: int

    def __init__(self, sentence: str, code: int = STOPPED) -> None:
        super().__init__(sentence)
        self.code = code


class Interruption(Callback):
    """Saves and stops a run on SIGTERM, SIGHUP, SIGUSR1, Ctrl-C and after `max_time`.

    The handler only sets a flag. At the end of the iteration, after the callbacks that are due, `last.ckpt`
    is saved and `Interrupted` raised, without the measurements of the run's end: schedulers grant seconds.
    Under SLURM, SIGUSR1 also requeues the job; SIGTERM does not. A run in its last iteration ends normally.
    A second Ctrl-C, a second later or more, interrupts at once. A signal that is ignored (`nohup`) stays so.

    Each step starts an async all_reduce(MAX) of the stop flag and reads the previous result, so all ranks
    stop together, one step late, and none waits.

    Args:
        max_time: wall-clock time that this process may train, "DD:HH:MM:SS" or {hours: 3}; None: no limit.

    Raises:
        ValueError: at the start, if the Trainer has no `Checkpoint` callback.
    """

    def __init__(self, max_time: str | timedelta | dict[str, int] | None = None) -> None:
        self.timer = Timer(max_time)
        self.signal_received = Reason.NONE
        self.interrupted_at = math.inf  # time of the first Ctrl-C
        self.started = False  # whether an iteration has ended in this process
        self.checkpoint: Checkpoint | None = None
        self.undo = ExitStack()  # restores handlers and Lightning's methods
        self.group: Any = None  # of all ranks, if there are several
        self.flag = torch.zeros(())  # the reason that is being reduced
        self.pending: dist.Work | None = None

    def on_fit_start(self, trainer: Trainer, gan: GAN) -> None:
        self.signal_received, self.interrupted_at, self.started = Reason.NONE, math.inf, False
        self.checkpoint = next((one for one in trainer.callbacks if isinstance(one, Checkpoint)), None)
        if self.checkpoint is None:
            raise ValueError("Interruption saves with the callback Checkpoint: add it to the callbacks.")
        for owner, name in (
            (getattr(trainer, "_signal_connector", None), "register_signal_handlers"),
            (trainer.fit_loop.epoch_loop, "_broadcast_sigterm_tensor"),
        ):
            if hasattr(owner, name):  # not every version of Lightning has it
                setattr(owner, name, lambda: None)
                self.undo.callback(delattr, owner, name)  # the instance's, which hides the class's
        self.install_handlers("SIGTERM", "SIGUSR1", "SIGHUP")

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.timer.on_train_start(trainer, gan)
        self.pending = None
        # On the CPU and in a group of its own, the flag waits for no gradient.
        self.group = dist.new_group(backend="gloo") if trainer.world_size > 1 else None

    def install_handlers(self, *names: str) -> None:
        for name in names:
            number = getattr(signal, name, None)  # Windows has not all of them
            if number is None or signal.getsignal(number) is signal.SIG_IGN:  # as nohup sets it
                continue
            if threading.current_thread() is threading.main_thread():  # Python allows no other
                previous = signal.signal(number, self.handle_signal)
                self.undo.callback(signal.signal, number, previous or signal.SIG_DFL)

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        self.signal_received = max(self.signal_received, Reason[signal.Signals(number).name])
        if number == signal.SIGINT:
            if time.monotonic() - self.interrupted_at > AT_ONCE:
                raise KeyboardInterrupt
            self.interrupted_at = min(self.interrupted_at, time.monotonic())
        if number == getattr(signal, "SIGHUP", None):
            redirect_closed_terminal()

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: Any) -> None:
        if not gan.iteration_is_complete:
            return
        if not self.started:  # until now Ctrl-C ends all ranks at once: there is nothing to save
            self.install_handlers("SIGINT")
            self.started = True
        if not (reason := self.stop_reason()):
            return
        assert self.checkpoint is not None
        self.checkpoint.if_unsaved = "stop"  # there is no later save
        self.checkpoint.save_now(trainer, gan)
        if 0 < trainer.max_steps <= trainer.global_step:  # nothing would be left for a resumed run
            return
        log_losses(trainer, gan)  # the callback that does so follows
        cause = "--trainer.max_time" if reason is Reason.MAX_TIME else reason.name
        requeues = reason is Reason.SIGUSR1 and trainer.is_global_zero and SLURMEnvironment.detect()
        raise Interrupted(
            f"Stopped by {cause} after {gan.images_seen:,} images, saved in "
            f"{self.checkpoint.path(trainer, 'last.ckpt')}: "
            + (requeue() if requeues else "go on with --ckpt_path last."),
            0 if launched_by_lightning(trainer) else CANCELLED if reason is Reason.SIGINT else STOPPED,
        )

    def stop_reason(self) -> Reason:
        """Why to stop; with several ranks the largest of all reasons, as of one iteration ago."""
        left = self.timer.time_remaining()
        reason = max(self.signal_received, Reason.NONE if left is None or left > 0 else Reason.MAX_TIME)
        if self.group is None:
            return reason
        if self.pending is not None:
            self.pending.wait()
            self.pending = None
            if self.flag:
                return Reason(int(self.flag))
        self.flag = torch.tensor(int(reason))
        self.pending = dist.all_reduce(self.flag, dist.ReduceOp.MAX, group=self.group, async_op=True)
        return Reason.NONE

    def on_exception(self, trainer: Trainer, gan: GAN, exception: BaseException) -> None:
        if not isinstance(exception, Interrupted):  # then no second signal may cut the end of the process
            self.undo.close()

    def teardown(self, trainer: Trainer, gan: GAN, stage: str) -> None:
        if self.pending is not None:
            self.pending.wait()
        if self.group is not None:
            dist.destroy_process_group(self.group)
        self.group = self.pending = None
        self.undo.close()


def redirect_closed_terminal() -> None:
    """Points stdout and stderr to /dev/null if their terminal is gone: printing would raise."""
    for stream in (1, 2):
        with suppress(OSError):  # closed before
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def launched_by_lightning(trainer: Trainer) -> bool:
    """Whether Lightning started this process, for one more device of a run."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, LightningEnvironment) and trainer.local_rank > 0


def requeue() -> str:
    """Requeues the SLURM job; returns the outcome, and what to do, as a sentence."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = " ".join(getattr(error, "stderr", "").split()) or error
        return f"SLURM job {job} could not be requeued ({reason}), submit it again with --ckpt_path last."
    return f"SLURM job {job} is requeued and goes on by itself."
