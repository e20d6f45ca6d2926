"""However a `litgan fit` with reading processes ends, it ends: exit code, one sentence, nobody left."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from functools import partial

import numpy as np
import pytest
from PIL import Image
from shared.fit_process import PYTHON
from shared.fit_process import Fit as AnyFit

pytestmark = pytest.mark.spawn

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
OPTIONS = [
    "--data=litgan.data.ImageFolder", "--data.resolution=8", "--data.channels=1", "--data.memory=disk",
    "--data.num_workers=2", "--data.batch_size=8", "--model.generator.widths=[8,8]",
    "--model.discriminator.widths=[8,8]", "--realism.every=0", "--samples.every=0", "--gradients.every=0",
    "--checkpoint.every=0", "--trainer.log_every_n_steps=5", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip
RANKS = ["--trainer.devices=2", "--trainer.strategy=adversarial_ddp"]
LONG, SHORT = "--trainer.max_steps=1000000", "--trainer.max_steps=10"


class Fit(AnyFit):
    """Of 32 images that two processes read from disk."""

    def __init__(self, root, *options, **arguments):
        self.images = root / "images"
        self.images.mkdir()
        random = np.random.default_rng(0)
        for number in range(32):
            pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(self.images / f"{number:02}.png")
        super().__init__(root, "digits", *OPTIONS, f"--data.root={self.images}", *options, **arguments)

    def delete_images(self):
        for image in self.images.iterdir():
            image.unlink()

    def block_reading(self):
        """Replaces the images by pipes that nobody fills: reading hangs, as a file system may."""
        for image in self.images.iterdir():
            image.unlink()
            os.mkfifo(image)


@pytest.fixture
def start(tmp_path):
    """Starts a Fit; what is left of it is killed."""
    fits = []

    def run(*options, **arguments):
        fits.append(Fit(tmp_path, *options, **arguments))
        return fits[-1]

    yield run
    for fit in fits:
        fit.kill()


ENDINGS = {
    "success": (SHORT, None, 0, "curves", True),
    "a deleted file": (LONG, Fit.delete_images, 1, ".png", True),
    "NaN": ("--model.generator_optimizer.lr=1e38", None, 1, "became nan", False),
    "Ctrl-C": (LONG, partial(Fit.signal, number=signal.SIGINT), 130, "Stopped by SIGINT", True),
    "SIGTERM": (LONG, partial(Fit.signal, number=signal.SIGTERM), 75, "Stopped by SIGTERM", True),
    "SIGHUP": (LONG, partial(Fit.signal, number=signal.SIGHUP), 75, "Stopped by SIGHUP", True),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_it_ends(name, start):
    option, act, code, words, saved = ENDINGS[name]
    fit = start(option)
    if act:
        act(fit.train())
    assert fit.end() == code, fit.said
    assert words in fit.said and "Traceback" not in fit.said, fit.said
    assert fit.said.count("litgan: error: ") == (code == 1)
    assert fit.said.count("Stopped by") == (code in (75, 130))
    if saved:
        clock = fit.state()["litgan"]
        assert clock["images_seen"] == 8 * clock["discriminator_updates"] >= 80
        assert code not in (75, 130) or f"after {clock['images_seen']:,} images" in fit.said


def test_all_ranks_that_a_terminal_interrupts_leave_together(start):
    """Lightning's launcher kills the run when a rank that it started does not end with 0."""
    fit = start(*RANKS, LONG).train()
    fit.signal(signal.SIGINT)
    assert fit.end() == 130, fit.said
    assert fit.said.count(f"Stopped by SIGINT after {fit.images_saved:,} images") == 1
    assert "Traceback" not in fit.said and "error" not in fit.said, fit.said


@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_ranks_that_are_interrupted_before_they_train_leave_together(seconds, start):
    """The first one waits for the other, where Python notices no signal; there is nothing to save."""
    fit = start(*RANKS, LONG)
    fit.wait_until(lambda: "training" in fit.said)
    time.sleep(seconds)
    fit.signal(signal.SIGINT)
    assert fit.end() == 130, fit.said
    assert "Traceback" not in fit.said and "rror" not in fit.said, fit.said
    assert fit.said.count(NOTHING) == 1 and not list(fit.root.glob("digits/*")), fit.said


def test_ctrl_c_in_code_that_python_runs_from_a_string(start, tmp_path):
    """As dataclasses do; where an import is interrupted."""
    (tmp_path / "interrupted.py").write_text('exec("raise KeyboardInterrupt")\n')
    fit = start("--data=interrupted.Data")
    assert fit.end() == 130, fit.said


def test_torchrun_hands_ctrl_c_on(start):
    """Itself it ends with a traceback and code 1."""
    fit = start(*RANKS, LONG, command=[*TORCHRUN, "--nproc-per-node=2"]).train()
    fit.signal(signal.SIGINT)
    assert fit.end() == 1, fit.said
    assert fit.said.count(f"Stopped by SIGINT after {fit.images_saved:,} images") == 1, fit.said
    assert "litgan: error" not in fit.said, fit.said


NOTHING = "Stopped by SIGINT in the first iteration: there is nothing to save yet."
HEADER = {"training", "wandb:", "data:"}  # how the lines begin that a start prints


def test_a_second_ctrl_c_ends_it_at_once(start):
    fit = start(LONG).train()
    fit.block_reading()
    for _ in range(2):
        time.sleep(3)
        assert fit.process.poll() is None, fit.said
        fit.signal(signal.SIGINT)
    assert fit.end() == 130, fit.said
    assert {line.split()[0] for line in fit.said.splitlines()} <= HEADER, fit.said
    assert fit.images_saved >= 120


SLOW = """
import time
from lightning.pytorch import Callback

class Slow(Callback):
    def on_fit_start(self, trainer, gan):
        print("slow", flush=True)
        time.sleep(600)
"""


def test_ctrl_c_before_the_first_iteration(start, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    fit = start(LONG, "--trainer.callbacks=slow.Slow")
    fit.wait_until(lambda: "slow" in fit.said)
    fit.signal(signal.SIGINT)
    assert fit.end() == 130, fit.said
    lines = [line for line in fit.said.splitlines() if line]
    assert {line.split()[0] for line in lines[:-1]} <= {*HEADER, "slow"} and lines[-1] == NOTHING, fit.said


def test_readers_end_when_training_is_killed(start):
    fit = start(LONG).train()
    fit.process.kill()
    assert fit.end() == -signal.SIGKILL


def test_under_nohup_it_outlasts_the_terminal(start):
    fit = start(LONG, command=["nohup", *PYTHON]).train()
    fit.signal(signal.SIGHUP)
    fit.train(20).signal(signal.SIGTERM)
    assert fit.end() == 75, fit.said


def test_closing_the_terminal_saves_and_ends_it(start, tmp_path):
    """Printing the last sentence would fail."""
    terminal, there = pty.openpty()
    command = ["bash", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(there), *PYTHON]
    fit = start(LONG, command=command).train()  # a session leader's first terminal controls it
    os.close(there)
    os.close(terminal)
    assert fit.end() == 75, fit.said
    assert fit.images_saved >= 120
