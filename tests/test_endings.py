"""However a `litgan fit` with reading processes ends, it ends: exit code, one sentence, nobody left."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litgan import checkpoints

pytestmark = pytest.mark.spawn

PYTHON, TORCHRUN = [sys.executable], [sys.executable, "-m", "torch.distributed.run", "--standalone"]
FIT = [
    "-m", "litgan", "fit", "--config", str(Path(__file__).parents[1] / "configs/digits.yaml"),
    "--data=litgan.data.ImageFolder", "--data.resolution=8", "--data.channels=1", "--data.memory=disk",
    "--data.num_workers=2", "--data.batch_size=8", "--model.generator.widths=[8,8]",
    "--model.discriminator.widths=[8,8]", "--realism.every=0", "--samples.every=0", "--gradients.every=0",
    "--checkpoint.every=0", "--trainer.log_every_n_steps=5", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip
RANKS = ["--trainer.devices=2", "--trainer.strategy=adversarial_ddp"]
LONG, SHORT = "--trainer.max_steps=1000000", "--trainer.max_steps=10"


class Fit:
    """A `litgan fit` of 32 pictures, read from disk by two processes, in a process group of its own."""

    def __init__(self, root: Path, *options: str, command: list[str] = PYTHON) -> None:
        self.root, self.said_in, self.pictures = root, root / "said", root / "pictures"
        self.pictures.mkdir()
        random = np.random.default_rng(0)
        for number in range(32):
            pixels = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(self.pictures / f"{number:02}.png")
        environment = {key: value for key, value in os.environ.items() if key != "LITGAN_RUN_ID"}
        places = [f"--trainer.default_root_dir={root}", f"--data.root={self.pictures}"]
        with self.said_in.open("w") as said:
            self.process = subprocess.Popen(
                [*command, *FIT, *places, *options], start_new_session=True, stdout=said, stderr=said,
                env=environment | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}, cwd=root,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.said_in.read_text()

    @property
    def last(self) -> Path:
        (folder,) = self.root.glob("digits/*")
        return folder / "checkpoints" / "last.ckpt"

    @property
    def rows(self) -> int:
        metrics = next(self.root.glob("digits/*/metrics.csv"), None)
        return len(metrics.read_text().splitlines()) if metrics else 0

    def signal(self, number: signal.Signals) -> None:
        """To every process of the group, as terminals and schedulers do."""
        os.killpg(self.process.pid, number)

    def delete_pictures(self) -> None:
        for picture in self.pictures.iterdir():
            picture.unlink()

    def hold_up(self) -> None:
        """Makes pipes of the pictures that nobody fills: reading never ends, as where a file system hangs."""
        for picture in self.pictures.iterdir():
            picture.unlink()
            os.mkfifo(picture)

    def train(self, rows: int = 3) -> Fit:
        """Waits until so many more rows of metrics are written."""
        rows += self.rows
        return self.wait_until(lambda: self.rows > rows)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120.0) -> Fit:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None or condition == self.gone, self.said
            assert time.monotonic() < until, f"in vain: {self.said}"
            time.sleep(0.02)
        return self

    def end(self) -> int:
        """The exit code, once no process of the group is left."""
        code = self.process.wait(timeout=120)
        self.wait_until(self.gone, 30)
        return code

    def gone(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Fit]]:
    """Starts a Fit; what is left of it is ended, by torchrun what it started, and killed."""
    fits: list[Fit] = []

    def run(*options: str, command: list[str] = PYTHON) -> Fit:
        fits.append(Fit(tmp_path, *options, command=command))
        return fits[-1]

    yield run
    for fit in fits:
        fit.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            fit.process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(fit.process.pid, signal.SIGKILL)
        fit.process.wait()


ENDINGS = {
    "success": (SHORT, None, 0, "curves", True),
    "a deleted file": (LONG, Fit.delete_pictures, 1, ".png", True),
    "NaN": ("--model.generator_optimizer.lr=1e38", None, 1, "became nan", False),
    "Ctrl-C": (LONG, partial(Fit.signal, number=signal.SIGINT), 130, "Stopped by SIGINT", True),
    "SIGTERM": (LONG, partial(Fit.signal, number=signal.SIGTERM), 75, "Stopped by SIGTERM", True),
    "SIGHUP": (LONG, partial(Fit.signal, number=signal.SIGHUP), 75, "Stopped by SIGHUP", True),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_it_ends(name: str, start: Callable[..., Fit]) -> None:
    option, act, code, words, saved = ENDINGS[name]
    fit = start(option)
    if act:
        act(fit.train())
    assert fit.end() == code, fit.said
    assert words in fit.said and "Traceback" not in fit.said, fit.said
    assert fit.said.count("litgan: error: ") == (code == 1)
    assert fit.said.count("Stopped by") == (code in (75, 130))
    if saved:
        clock = checkpoints.read(fit.last)["litgan"]
        assert clock["images_seen"] == 8 * clock["discriminator_updates"] >= 80
        assert code not in (75, 130) or f"after {clock['images_seen']:,} images" in fit.said


def test_all_ranks_that_a_terminal_interrupts_leave_together(start: Callable[..., Fit]) -> None:
    """Lightning's launcher kills the run when a rank that it started does not end with 0."""
    fit = start(*RANKS, LONG).train()
    fit.signal(signal.SIGINT)
    assert fit.end() == 130, fit.said
    clock = checkpoints.read(fit.last)["litgan"]
    assert fit.said.count(f"Stopped by SIGINT after {clock['images_seen']:,} images") == 1
    assert "Traceback" not in fit.said and "error" not in fit.said, fit.said


def test_torchrun_hands_ctrl_c_on(start: Callable[..., Fit]) -> None:
    """Itself it ends with a traceback and code 1."""
    fit = start(*RANKS, LONG, command=[*TORCHRUN, "--nproc-per-node=2"]).train()
    fit.signal(signal.SIGINT)
    assert fit.end() == 1, fit.said
    clock = checkpoints.read(fit.last)["litgan"]
    assert fit.said.count(f"Stopped by SIGINT after {clock['images_seen']:,} images") == 1, fit.said
    assert "litgan: error" not in fit.said, fit.said


def test_a_second_ctrl_c_ends_it_at_once(start: Callable[..., Fit]) -> None:
    fit = start(LONG).train()
    fit.hold_up()
    for _ in range(2):
        time.sleep(3)
        assert fit.process.poll() is None, fit.said
        fit.signal(signal.SIGINT)
    assert fit.end() == 130, fit.said
    assert len(fit.said.splitlines()) == 1, fit.said
    assert checkpoints.read(fit.last)["litgan"]["images_seen"] >= 120


SLOW = """
import time
from lightning.pytorch import Callback

class Slow(Callback):
    def on_fit_start(self, trainer, gan):
        print("slow", flush=True)
        time.sleep(600)
"""


def test_ctrl_c_before_the_first_iteration(start: Callable[..., Fit], tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    fit = start(LONG, "--trainer.callbacks=slow.Slow")
    fit.wait_until(lambda: "slow" in fit.said)
    fit.signal(signal.SIGINT)
    assert fit.end() == 130, fit.said
    assert len(fit.said.splitlines()) == 2, fit.said


def test_readers_end_when_training_is_killed(start: Callable[..., Fit]) -> None:
    fit = start(LONG).train()
    fit.process.kill()
    assert fit.end() == -signal.SIGKILL


def test_under_nohup_it_outlasts_the_terminal(start: Callable[..., Fit]) -> None:
    fit = start(LONG, command=["nohup", *PYTHON]).train()
    fit.signal(signal.SIGHUP)
    fit.train(20).signal(signal.SIGTERM)
    assert fit.end() == 75, fit.said


def test_closing_the_terminal_saves_and_ends_it(start: Callable[..., Fit], tmp_path: Path) -> None:
    """Printing the last sentence would fail."""
    terminal, there = pty.openpty()
    command = ["bash", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(there), *PYTHON]
    fit = start(LONG, command=command).train()  # a session leader's first terminal controls it
    os.close(there)
    os.close(terminal)
    assert fit.end() == 75, fit.said
    assert checkpoints.read(fit.last)["litgan"]["images_seen"] >= 120
