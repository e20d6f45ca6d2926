"""However a `litgan fit` with reading processes ends, it ends: exit code, one sentence, nobody left."""

from __future__ import annotations

import os
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

pytestmark = pytest.mark.slow

FIT = [
    sys.executable, "-m", "litgan", "fit", "--config", str(Path(__file__).parents[1] / "configs/digits.yaml"),
    "--data=litgan.data.ImageFolder", "--data.resolution=8", "--data.channels=1", "--data.memory=disk",
    "--data.num_workers=2", "--data.batch_size=8", "--model.generator.widths=[8,8]",
    "--model.discriminator.widths=[8,8]", "--realism.every=0", "--samples.every=0", "--gradients.every=0",
    "--checkpoint.every=0", "--trainer.log_every_n_steps=5", "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip
LONG, SHORT = "--trainer.max_steps=1000000", "--trainer.max_steps=10"


class Fit:
    """A `litgan fit` of 32 pictures, read from disk by two processes, in a process group of its own."""

    def __init__(self, root: Path, *options: str, before: tuple[str, ...] = ()) -> None:
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
                [*before, *FIT, *places, *options], stdout=said, stderr=said, start_new_session=True,
                env=environment | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.said_in.read_text()

    @property
    def last(self) -> Path:
        (folder,) = self.root.glob("digits/*")
        return folder / "checkpoints" / "last.ckpt"

    def signal(self, number: signal.Signals) -> None:
        """To every process of the group, as terminals and schedulers do."""
        os.killpg(self.process.pid, number)

    def delete_pictures(self) -> None:
        for picture in self.pictures.iterdir():
            picture.unlink()

    def train(self, rows: int = 3) -> Fit:
        """Waits until so many rows of metrics are written."""

        def written() -> bool:
            assert self.process.poll() is None, self.said
            metrics = next(self.root.glob("digits/*/metrics.csv"), None)
            return metrics is not None and len(metrics.read_text().splitlines()) > rows

        return self.wait_until(written)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120.0) -> Fit:
        until = time.monotonic() + seconds
        while not condition():
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
    """Starts a Fit; what is left of it is killed."""
    fits: list[Fit] = []

    def run(*options: str, before: tuple[str, ...] = ()) -> Fit:
        fits.append(Fit(tmp_path, *options, before=before))
        return fits[-1]

    yield run
    for fit in fits:
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
        assert clock["images_seen"] == 8 * clock["turns"] >= 80
        assert code not in (75, 130) or f"after {clock['images_seen']:,} images" in fit.said
