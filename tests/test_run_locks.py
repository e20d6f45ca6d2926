"""Real processes that want the same run folder: one at a time has it, and a killed one has it no more."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from litgan.loggers import read_metrics
from litgan.recipe import Recipe

pytestmark = pytest.mark.spawn

RING = [
    "--config", str(Path(__file__).parents[1] / "configs" / "ring.yaml"), "--trainer.log_every_n_steps=1",
    "--data.batch_size=16", "--model.generator.widths=[16]", "--model.discriminator.widths=[16]",
    "--samples.every=0", "--realism.every=0", "--gradients.every=0", "--checkpoint.every=320",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip
Fit: TypeAlias = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def fit(tmp_path: Path) -> Iterator[Fit]:
    """Starts a `litgan fit` of the run "shared"; what is left of it is killed."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*options: str, wandb: str = "disabled") -> subprocess.Popen[bytes]:
        own = {"LITGAN_RUN_ID": "shared", "WANDB_MODE": wandb, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "litgan", "fit", *RING, f"--trainer.default_root_dir={tmp_path}"]
        with (tmp_path / f"{len(processes)}.said").open("w") as said:
            processes.append(
                subprocess.Popen(
                    [*command, *options], env=os.environ | own, stdout=subprocess.DEVNULL, stderr=said
                )
            )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def rows_of(folder: Path) -> list[float]:
    path = folder / "metrics.csv"
    return [row["images_seen"] for row in read_metrics(path)] if path.exists() else []


def contents(folder: Path) -> dict[Path, bytes]:
    """Of all files but W&B's own, which a process beside ours writes."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if "wandb" not in path.parts}


def wait_for_more(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Returns when there is a checkpoint, and more rows have been logged."""
    before, end = len(rows_of(folder)), time.monotonic() + 120
    while not (folder / "checkpoints" / "last.ckpt").exists() or len(rows_of(folder)) <= before:
        assert process.poll() is None and time.monotonic() < end, "nothing is logged"
        time.sleep(0.1)


def test_a_folder_belongs_to_one_process_at_a_time(fit: Fit, tmp_path: Path) -> None:
    folder = tmp_path / "ring" / "shared"
    first = fit("--trainer.max_steps=1000000", wandb="offline")  # with W&B's own process, that outlives it
    wait_for_more(folder, first)
    half = folder / "samples" / ".000000064.png.7.partial"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"being written")
    os.kill(first.pid, signal.SIGSTOP)  # it keeps the folder, and leaves the cores to the others
    before = contents(folder)

    others = [fit("--seed_everything=7", *more) for more in ([], ["--ckpt_path=last"])]
    assert [other.wait(timeout=120) for other in others] == [1, 1]
    for number in (1, 2):
        (sentence,) = (tmp_path / f"{number}.said").read_text().splitlines()
        assert str(folder) in sentence
    assert contents(folder) == before

    os.kill(first.pid, signal.SIGCONT)
    wait_for_more(folder, first)
    first.kill()
    seen = int(rows_of(folder)[-1])
    last = fit(f"--trainer.max_steps={seen // 16 + 20}")
    assert last.wait(timeout=120) == 0, (tmp_path / "3.said").read_text()
    rows = rows_of(folder)
    assert rows == sorted(set(rows)) and rows[-1] > seen
    assert not half.exists()


def test_a_start_that_fails_gives_the_folder_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITGAN_RUN_ID", "shared")
    for _ in range(2):
        with pytest.raises(ValueError, match="discriminator_steps"):
            Recipe(
                [*RING, "--model.discriminator_steps=0", f"--trainer.default_root_dir={tmp_path / 'runs'}"]
            )
        assert list(tmp_path.iterdir()) == [], "nothing was made for it"
