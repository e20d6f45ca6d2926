"""Real `litgan fit` processes that are told to stop, on one rank and on two, and a disk that fills up."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from litgan import checkpoints
from litgan.loggers import read_metrics

pytestmark = pytest.mark.spawn

TURNS, BATCH, ITERATIONS = 2, 16, 500
FIT = [sys.executable, "-m", "litgan", "fit"]
RING = [
    "--config", str(Path(__file__).parents[1] / "configs" / "ring.yaml"), f"--trainer.max_steps={ITERATIONS}",
    "--trainer.log_every_n_steps=5", f"--model.discriminator_steps={TURNS}", f"--data.batch_size={BATCH}",
    "--model.generator.widths=[16]", "--model.discriminator.widths=[16]", "--samples.every=0",
    "--gradients.every=0", "--checkpoint.every=0", "--trainer.enable_progress_bar=false",
]  # fmt: skip
SLURM = {
    "JOB_ID": "4711", "STEP_ID": "0", "JOB_NAME": "gan", "NTASKS": "1", "NTASKS_PER_NODE": "1", "NNODES": "1",
    "PROCID": "0", "LOCALID": "0", "NODEID": "0", "NODELIST": "localhost",
}  # fmt: skip
ALONE = {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}  # SIGABRT shows what every thread is doing


class Fit:
    """A `litgan fit` in a process group of its own, which nobody may outlive."""

    def __init__(self, root: Path, *options: str, **environment: str) -> None:
        self.root, self.said = root, root / "said"
        root.mkdir(exist_ok=True)
        variables = {key: value for key, value in os.environ.items() if key != "LITGAN_RUN_ID"}
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                [*FIT, *RING, f"--trainer.default_root_dir={root}", *options],
                env=variables | {"WANDB_MODE": "disabled", **ALONE} | environment,
                stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def folder(self) -> Path:
        (folder,) = self.root.glob("ring/*")
        return folder

    @property
    def images_seen(self) -> int:
        metrics = next(self.root.glob("ring/*/metrics.csv"), None)
        lines = metrics.read_text().splitlines()[1:] if metrics else []
        return int(lines[-1].split(",")[0]) if lines else 0

    def wait_until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 240
        while not condition():
            assert self.process.poll() is None, self.said.read_text()[-3000:]
            if time.monotonic() > end:  # every process of the group tells where each of its threads is
                os.killpg(self.process.pid, signal.SIGABRT)
                self.process.wait()
                raise AssertionError(f"nothing happens: {self.said.read_text()[-9000:]}")
            time.sleep(0.01)

    def train(self, iterations: int) -> Fit:
        """Waits until so many more have been recorded."""
        start = self.images_seen
        self.wait_until(lambda: self.images_seen >= start + iterations * TURNS * BATCH)
        return self

    def end(self) -> tuple[int, str]:
        """The exit code and what was said, once the whole group is gone."""
        code = self.process.wait(timeout=120)
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return code, self.said.read_text()
            time.sleep(0.05)
        raise AssertionError(f"a process stays behind: {self.said.read_text()[-3000:]}")

    def state(self) -> dict[str, Any]:
        return checkpoints.read(self.folder / "checkpoints" / "last.ckpt")


Start: TypeAlias = Callable[..., Fit]


@pytest.fixture(scope="module")
def start() -> Iterator[Start]:
    """Starts a Fit; what is left of it is killed."""
    fits: list[Fit] = []

    def run(*arguments: Any, **environment: str) -> Fit:
        fits.append(Fit(*arguments, **environment))
        return fits[-1]

    yield run
    for fit in fits:
        with suppress(ProcessLookupError):
            os.killpg(fit.process.pid, signal.SIGKILL)
        fit.process.wait()


@pytest.fixture(scope="module")
def straight(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """The run that nobody stopped."""
    fit = start(tmp_path_factory.mktemp("straight"))
    code, said = fit.end()
    assert code == 0, said[-3000:]
    return fit


def assert_same_end(fit: Fit, straight: Fit) -> None:
    """Weights, optimizers and clock bit for bit, and the same rows of metrics."""
    ends = [one.state() for one in (fit, straight)]
    for end in ends:
        assert end["litgan"]["images_seen"] == ITERATIONS * TURNS * BATCH
    weights = [end["state_dict"] for end in ends]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    slots = [[slot for adam in end["optimizer_states"] for slot in adam["state"].values()] for end in ends]
    for slot, other in zip(*slots, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in slot.items())
    rows = [
        [{key: row[key] for key in row if not key.startswith("speed/")} for row in read_metrics(path)]
        for path in (one.folder / "metrics.csv" for one in (fit, straight))
    ]
    assert rows[0] == rows[1]


def test_stopped_three_times_it_ends_as_if_never_stopped(start: Start, straight: Fit, tmp_path: Path) -> None:
    """SIGUSR1 and SIGTERM under SLURM, `max_time` without it; and leftovers of a killed process."""
    calls, scontrol = tmp_path / "calls", tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    scontrol.chmod(0o755)
    slurm = {f"SLURM_{key}": value for key, value in SLURM.items()}
    slurm |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    root, clocks = tmp_path / "runs", [0]

    def stopped(fit: Fit, cause: str, remedy: str) -> None:
        code, said = fit.end()
        saved = fit.state()["litgan"]
        assert code == 75, said[-3000:]
        assert f"Stopped by {cause} after {saved['images_seen']:,} images, saved in {fit.folder}" in said
        assert said.count("Stopped by") == 1 and remedy in said
        assert (
            saved["discriminator_updates"] % TURNS == 0
            and clocks[-1] < saved["images_seen"] < ITERATIONS * TURNS * BATCH
        )
        clocks.append(saved["images_seen"])

    fit = start(root, **slurm).train(20)
    fit.process.send_signal(signal.SIGUSR1)
    stopped(fit, "SIGUSR1", "SLURM job 4711 is requeued and goes on by itself.")
    assert fit.folder.name == "slurm-4711-0" and calls.read_text() == "requeue 4711\n"

    leftovers = [fit.folder / name for name in ("checkpoints/.last.ckpt.7.partial", ".metrics.csv.partial")]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    fit = start(root, **slurm).train(20)  # goes on without being told from where
    assert not any(leftover.exists() for leftover in leftovers)
    fit.process.send_signal(signal.SIGTERM)
    stopped(fit, "SIGTERM", "go on with --ckpt_path last.")
    assert calls.read_text() == "requeue 4711\n", "not requeued again"

    fit = start(root, "--ckpt_path=last", '--trainer.max_time={"milliseconds": 200}')
    stopped(fit, "--trainer.max_time", "go on with --ckpt_path last.")
    fit = start(root, "--ckpt_path=last")
    code, said = fit.end()
    assert code == 0, said[-3000:]
    assert_same_end(fit, straight)


def test_two_ranks_leave_together_whichever_is_told(start: Start, tmp_path: Path) -> None:
    """Under Lightning's launcher, whose observer kills everybody when a child does not end with 0."""
    clocks = [0]
    for options, rank in (([], 1), (["--ckpt_path=last"], 0)):
        fit = start(tmp_path / "runs", "--trainer.devices=2", "--trainer.strategy=adversarial_ddp", *options)
        fit.train(5)
        (child,) = Path(f"/proc/{fit.process.pid}/task/{fit.process.pid}/children").read_text().split()
        os.kill(int(child) if rank else fit.process.pid, signal.SIGTERM)
        code, said = fit.end()
        assert code == 75, said[-3000:]
        saved = fit.state()
        assert said.count(f"Stopped by SIGTERM after {saved['litgan']['images_seen']:,} images") == 1
        assert saved["litgan"]["discriminator_updates"] == TURNS * saved["global_step"]
        clocks.append(saved["litgan"]["images_seen"])
        assert [path.name for path in (fit.folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert clocks == sorted(set(clocks)) and clocks[-1] < ITERATIONS * TURNS * BATCH


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a limit is set from outside: Linux")
def test_a_disk_that_is_full_for_a_while_changes_nothing(start: Start, straight: Fit, tmp_path: Path) -> None:
    """No file may have more than 6,000 bytes until a checkpoint was refused."""
    every = 50 * TURNS * BATCH
    fit = start(tmp_path / "runs", f"--checkpoint.every={every}", "--checkpoint.if_unsaved=continue")
    fit.wait_until(lambda: any(fit.root.glob("ring/*/checkpoints/last.ckpt")))
    resource.prlimit(fit.process.pid, resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
    refused = "last.ckpt cannot be saved (File too large): make room there; what was saved before is intact."
    fit.wait_until(lambda: refused in fit.said.read_text())
    saved = fit.state()["litgan"]["images_seen"]
    assert 0 < saved < ITERATIONS * TURNS * BATCH and saved % every == 0
    resource.prlimit(fit.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    code, said = fit.end()
    assert code == 0, said[-3000:]
    ends, rows = [], []
    for one in (fit, straight):
        ends.append(one.state()["state_dict"])
        rows.append({row["images_seen"] for row in read_metrics(one.folder / "metrics.csv")})
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert rows[0] <= rows[1] and max(rows[0]) == max(rows[1]), "those of that while may be lost"
