"""Interruption: a run that is told to stop saves at the end of its iteration, and leaves."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
from contextlib import suppress
from datetime import timedelta
from enum import IntEnum
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Timer
from torch import distributed

from litgan.callbacks.checkpoint import Checkpoint
from litgan.gan import GAN

STOPPED = 75  # exit code; EX_TEMPFAIL of BSD's sysexits.h: try again later
CANCELLED = 130  # exit code; what shells make of SIGINT


class Reason(IntEnum):
    """Why to stop. Of several the largest counts: who sends SIGUSR1 before SIGTERM wants to be requeued, and
    nothing starts again by itself what a person stopped with Ctrl-C.
    """

    NONE = 0
    MAX_TIME = 1
    SIGHUP = 2
    SIGTERM = 3
    SIGUSR1 = 4
    SIGINT = 5


class Interrupted(SystemExit):
    """The run stopped before its end and is saved: `--ckpt_path last` goes on with it.

    Ends the process with code 75, after Ctrl-C with 130, or with 0 where Lightning launched it, which takes
    any other code for a crash and kills the run.
    """

    code: int

    def __init__(self, sentence: str, code: int = STOPPED) -> None:
        super().__init__(code)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class Interruption(Callback):
    """Stops a run on SIGTERM, SIGHUP, SIGUSR1, Ctrl-C and after `max_time`, saved.

    A signal is only noted. At the end of the iteration, when what is due by then has been measured and
    drawn, `last.ckpt` is saved and `Interrupted` raised, without the measurements and pictures of the
    run's end: schedulers grant seconds. Under SLURM, SIGUSR1 requeues the job, too; SIGTERM does not.
    A run that was told in its last iteration saves and ends as ever. A second Ctrl-C interrupts at once.
    A signal that the process was started to ignore (`nohup`) stays ignored.

    Several ranks leave together, whichever of them was told to: at the end of each iteration their reasons
    set out to one another, over the CPU and in the background, and at the end of the next they have
    arrived. Nobody waits, and they leave one iteration later.

    Args:
        max_time: wall-clock time that this process may train, "DD:HH:MM:SS" or {hours: 3}; None for no
            limit. (Lightning's Timer counts the whole run, so that a run stopped by it and resumed with
            the same limit would stop at once.)

    Raises:
        ValueError: at the start, if the Trainer has no `Checkpoint` to save with.
    """

    def __init__(self, max_time: str | timedelta | dict[str, int] | None = None) -> None:
        self.timer = Timer(max_time)
        self.signal_received = Reason.NONE
        self.previous_handlers: dict[signal.Signals, Any] = {}  # handlers that were in place
        self.disabled: list[tuple[object, str]] = []  # methods of Lightning's
        self.group: Any = None  # of all ranks, where there are several
        self.reason_tensor = torch.zeros(())  # the reason that travels
        self.pending: distributed.Work | None = None

    def on_fit_start(self, trainer: Trainer, gan: GAN) -> None:
        find_checkpoint_callback(trainer)
        self.signal_received = Reason.NONE
        self.disable_lightning_handlers(trainer)
        self.install_handlers("SIGTERM", "SIGUSR1", "SIGHUP")

    def install_handlers(self, *names: str) -> None:
        """Notices these signals from now on."""
        if threading.current_thread() is not threading.main_thread():  # others may not take signals
            return
        for name in names:
            one = getattr(signal, name, None)  # Windows has not all of them
            if one is not None and signal.getsignal(one) is not signal.SIG_IGN:  # as nohup has it
                self.previous_handlers[one] = signal.signal(one, self.handle_signal)

    def disable_lightning_handlers(self, trainer: Trainer) -> None:
        """Keeps Lightning from handling the same signals.

        Its handler broadcasts from within the handler, so that a signal to one rank alone hangs the run;
        its loop broadcasts before each batch and waits for the device to read the answer; and its SLURM
        handler saves in the middle of an iteration.
        """
        connector, loop = getattr(trainer, "_signal_connector", None), trainer.fit_loop.epoch_loop
        methods = ((connector, "register_signal_handlers"), (loop, "_broadcast_sigterm_tensor"))
        self.disabled = [
            (owner, name) for owner, name in methods if hasattr(owner, name)
        ]  # not every version
        for owner, name in self.disabled:
            setattr(owner, name, lambda: None)

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        self.signal_received = max(self.signal_received, Reason[signal.Signals(number).name])
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        if number == getattr(signal, "SIGHUP", None):
            redirect_closed_terminal()

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.install_handlers(
            "SIGINT"
        )  # not earlier: what comes before the first iteration leaves nothing to save
        self.timer.on_train_start(trainer, gan)
        self.pending = None
        if trainer.world_size > 1:  # a group of its own keeps its messages apart from the gradients
            self.group = distributed.new_group(backend="gloo")

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *batch: Any) -> None:
        if not gan.iteration_is_complete:
            return
        reason = self.stop_reason(trainer) if self.group is None else self.all_reduce_reason(trainer)
        if not reason:
            return
        checkpoint = find_checkpoint_callback(trainer)
        checkpoint.if_unsaved = "stop"  # there is no next save to wait for
        checkpoint.save_now(trainer, gan)
        if 0 < trainer.max_steps <= trainer.global_step:  # a resumed run would have nothing left to end
            return
        gan.on_train_batch_end(*batch)  # its turn would come after the callbacks': it writes the last row
        cause = reason.name if reason > Reason.MAX_TIME else "--trainer.max_time"
        remedy = "go on with --ckpt_path last."
        if reason is Reason.SIGUSR1 and trainer.is_global_zero and SLURMEnvironment.detect():
            remedy = requeue() or remedy
        raise Interrupted(
            f"Stopped by {cause} after {gan.images_seen:,} images, saved in "
            f"{checkpoint.path(trainer, 'last.ckpt')}: {remedy}",
            0 if launched_by_lightning(trainer) else CANCELLED if reason is Reason.SIGINT else STOPPED,
        )

    def stop_reason(self, trainer: Trainer) -> Reason:
        """Why this process wants to stop; the time is that of rank zero."""
        left = self.timer.time_remaining()
        late = trainer.is_global_zero and left is not None and left <= 0
        return max(self.signal_received, Reason.MAX_TIME if late else Reason.NONE)

    def all_reduce_reason(self, trainer: Trainer) -> Reason:
        """Why some rank wanted to stop one iteration ago; if none did, asks anew."""
        if self.pending is not None:
            self.pending.wait()
            self.pending = None
            if reason := Reason(int(self.reason_tensor)):
                return reason
        self.reason_tensor = torch.tensor(int(self.stop_reason(trainer)))
        self.pending = distributed.all_reduce(
            self.reason_tensor, distributed.ReduceOp.MAX, group=self.group, async_op=True
        )
        return Reason.NONE

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        if self.pending is not None:
            self.pending.wait()

    def on_exception(self, trainer: Trainer, gan: GAN, exception: BaseException) -> None:
        if not isinstance(exception, Interrupted):  # which ends the process: no second signal shall cut that
            self.restore_handlers(trainer)

    def teardown(self, trainer: Trainer, gan: GAN, stage: str) -> None:
        if self.group is not None and distributed.is_initialized():
            distributed.destroy_process_group(self.group)
        self.restore_handlers(trainer)

    def restore_handlers(self, trainer: Trainer) -> None:
        """Leaves handlers and Lightning as they were."""
        while self.previous_handlers:
            one, handler = self.previous_handlers.popitem()
            signal.signal(one, signal.SIG_DFL if handler is None else handler)
        while self.disabled:
            owner, name = self.disabled.pop()
            delattr(owner, name)  # the instance's, which hid the class's
        self.group = None


def find_checkpoint_callback(trainer: Trainer) -> Checkpoint:
    """The callback that saves this run."""
    for callback in trainer.callbacks:
        if isinstance(callback, Checkpoint):
            return callback
    raise ValueError("Interruption saves with the callback Checkpoint: add it to the Trainer's callbacks.")


def redirect_closed_terminal() -> None:
    """Sends to nowhere what is printed on a terminal that is gone: that fails, and would end the run."""
    for stream in (1, 2):
        with suppress(OSError):  # closed before
            if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def launched_by_lightning(trainer: Trainer) -> bool:
    """Whether Lightning started this process for another device of a run that somebody else started."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return isinstance(environment, LightningEnvironment) and trainer.local_rank > 0


def requeue() -> str:
    """Puts the SLURM job back into the queue; says what came of it, and what to do."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    job = f"{array}_{task}" if array else os.environ.get("SLURM_JOB_ID", "")
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = " ".join(getattr(error, "stderr", "").split()) or error
        return f"SLURM job {job} could not be requeued ({reason}), submit it again with --ckpt_path last."
    return f"SLURM job {job} is requeued and goes on by itself."
