"""Short runs of `litgan fit` on digits, on one CPU."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from litgan import cli

CONFIGS = Path(__file__).parents[2] / "configs"
PLAIN = [  # without pictures and measurements
    "--config", str(CONFIGS / "digits.yaml"), "--data.batch_size=32", "--trainer.accelerator=cpu",
    "--model.generator.widths=[8,8]", "--model.discriminator.widths=[8,8]", "--trainer.precision=32-true",
    "--trainer.enable_progress_bar=false", "--realism.every=0", "--samples.every=0", "--gradients.every=0",
]  # fmt: skip
CLASSES = ["--data.num_classes=10", "--model.extra_ema_halflives=[1000000]"]


class Run(NamedTuple):
    folder: Path
    said: str  # on stdout

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


def fit(root: Path, iterations: int, *options: str) -> Run:
    """Trains to so many iterations of 32 images; the newest run below `root`."""
    with redirect_stdout(StringIO()) as said:
        cli.main([
            "fit", *PLAIN, f"--trainer.default_root_dir={root}", f"--trainer.max_steps={iterations}", *options
        ])  # fmt: skip
    return Run(max(root.glob("digits/*"), key=lambda path: path.name), said.getvalue())


def conditional_run(factory: pytest.TempPathFactory) -> Run:
    """Digits by class, 4 iterations, measured and drawn every 64 images, logged every 64 to W&B offline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITGAN_CACHE", str(factory.getbasetemp() / "cache"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("LITGAN_RUN_ID", "")
        return fit(
            factory.mktemp("runs"), 4, *CLASSES, "--trainer.log_every_n_steps=2", "--realism.count=300",
            "--realism.every=64", "--samples.every=64",
        )  # fmt: skip
