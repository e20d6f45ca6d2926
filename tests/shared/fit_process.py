"""A real `litgan fit`, in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from litgan import checkpoints

PYTHON = [sys.executable]
CONFIGS = Path(__file__).parents[2] / "configs"


class Fit:
    """Starts a recipe of configs/ below `root`; stdout and stderr go to root/said."""

    def __init__(
        self, root: Path, recipe: str, *options: str, command: list[str] = PYTHON, **environment: str
    ) -> None:
        self.root, self.recipe, self.said_in = root, recipe, root / "said"
        root.mkdir(exist_ok=True)
        config = ["--config", str(CONFIGS / f"{recipe}.yaml"), f"--trainer.default_root_dir={root}"]
        variables = {key: value for key, value in os.environ.items() if key != "LITGAN_RUN_ID"}
        variables |= {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        with self.said_in.open("w") as said:
            self.process = subprocess.Popen(
                [*command, "-m", "litgan", "fit", *config, *options], env=variables | environment, cwd=root,
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.said_in.read_text()

    @property
    def folder(self) -> Path:
        (folder,) = self.root.glob(f"{self.recipe}/*")
        return folder

    @property
    def rows(self) -> int:
        metrics = next(self.root.glob(f"{self.recipe}/*/metrics.csv"), None)
        return len(metrics.read_text().splitlines()) if metrics else 0

    def state(self) -> dict[str, Any]:
        return checkpoints.read(self.folder / "checkpoints" / "last.ckpt")

    @property
    def images_saved(self) -> int:
        return self.state()["litgan"]["images_seen"]

    def signal(self, number: signal.Signals) -> None:
        """To every process of the group, as terminals and schedulers do."""
        os.killpg(self.process.pid, number)

    def train(self, rows: int = 3) -> Fit:
        """Waits until so many more rows of metrics are written."""
        rows += self.rows
        return self.wait_until(lambda: self.rows > rows)

    def wait_until(self, condition: Callable[[], Any], seconds: float = 240.0) -> Fit:
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None or condition == self.gone, self.said
            if time.monotonic() > until:
                with suppress(ProcessLookupError):
                    self.signal(signal.SIGABRT)  # makes each process print where its threads are
                self.process.wait()
                raise AssertionError(f"waited in vain: {self.said[-9000:]}")
            time.sleep(0.02)
        return self

    def gone(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def end(self) -> int:
        """The exit code, once no process of the group is left."""
        code = self.process.wait(timeout=120)
        self.wait_until(self.gone, 30)
        return code

    def kill(self) -> None:
        """Ends what is left: first in order, as torchrun then ends what it started."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(60)
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self.process.wait()
