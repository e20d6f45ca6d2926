"""Real `litgan fit` processes that are told to stop, on one rank and on two, and a disk that fills up."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from shared.fit_process import Fit

from litgan.loggers import read_metrics

pytestmark = pytest.mark.spawn

STEPS, BATCH, ITERATIONS = 2, 16, 500
IMAGES = ITERATIONS * STEPS * BATCH
OPTIONS = [
    f"--trainer.max_steps={ITERATIONS}", "--trainer.log_every_n_steps=5", "--samples.every=0",
    f"--model.discriminator_steps={STEPS}", f"--data.batch_size={BATCH}", "--model.generator.widths=[16]",
    "--model.discriminator.widths=[16]", "--gradients.every=0", "--checkpoint.every=0",
    "--trainer.enable_progress_bar=false",
]  # fmt: skip
SLURM = {
    "JOB_ID": "4711", "STEP_ID": "0", "JOB_NAME": "gan", "NTASKS": "1", "NTASKS_PER_NODE": "1", "NNODES": "1",
    "PROCID": "0", "LOCALID": "0", "NODEID": "0", "NODELIST": "localhost",
}  # fmt: skip


@pytest.fixture(scope="module")
def start():
    """Starts a Fit of points; what is left of it is killed."""
    fits = []

    def run(root, *options, **environment):
        fits.append(Fit(root, "ring", *OPTIONS, *options, **environment))
        return fits[-1]

    yield run
    for fit in fits:
        fit.kill()


@pytest.fixture(scope="module")
def straight(start, tmp_path_factory):
    """A run that nobody stopped."""
    fit = start(tmp_path_factory.mktemp("straight"))
    assert fit.end() == 0, fit.said
    return fit


def assert_same_end(fit, straight):
    """Weights, optimizers and clock bit for bit, and the same rows of metrics."""
    ends = [one.state() for one in (fit, straight)]
    for end in ends:
        assert end["litgan"]["images_seen"] == IMAGES
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


def test_stopped_three_times_it_ends_as_if_never_stopped(start, straight, tmp_path):
    """SIGUSR1 and SIGTERM under SLURM, `max_time` without it; and leftovers of a killed process."""
    calls, scontrol = tmp_path / "calls", tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    scontrol.chmod(0o755)
    slurm = {f"SLURM_{key}": value for key, value in SLURM.items()}
    slurm |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    root, clocks = tmp_path / "runs", [0]

    def stopped(fit, cause, remedy):
        assert fit.end() == 75, fit.said
        said, saved = fit.said, fit.state()["litgan"]
        assert f"Stopped by {cause} after {saved['images_seen']:,} images, saved in {fit.folder}" in said
        assert said.count("Stopped by") == 1 and remedy in said
        assert saved["discriminator_updates"] % STEPS == 0 and clocks[-1] < saved["images_seen"] < IMAGES
        clocks.append(saved["images_seen"])

    fit = start(root, **slurm).train(4)
    fit.process.send_signal(signal.SIGUSR1)
    stopped(fit, "SIGUSR1", "SLURM job 4711 is requeued and goes on by itself.")
    assert fit.folder.name == "slurm-4711-0" and calls.read_text() == "requeue 4711\n"

    leftovers = [fit.folder / name for name in ("checkpoints/.last.ckpt.7.partial", ".metrics.csv.partial")]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    fit = start(root, **slurm).train(4)  # goes on without being told from where
    assert not any(leftover.exists() for leftover in leftovers)
    fit.process.send_signal(signal.SIGTERM)
    stopped(fit, "SIGTERM", "go on with --ckpt_path last.")
    assert calls.read_text() == "requeue 4711\n", "not requeued again"

    fit = start(root, "--ckpt_path=last", '--trainer.max_time={"milliseconds": 200}')
    stopped(fit, "--trainer.max_time", "go on with --ckpt_path last.")
    fit = start(root, "--ckpt_path=last")
    assert fit.end() == 0, fit.said
    assert_same_end(fit, straight)


def test_two_ranks_leave_together_whichever_is_told(start, tmp_path):
    """Under Lightning's launcher, whose observer kills everybody when a child does not end with 0."""
    clocks = [0]
    for options, rank in (([], 1), (["--ckpt_path=last"], 0)):
        fit = start(tmp_path / "runs", "--trainer.devices=2", "--trainer.strategy=adversarial_ddp", *options)
        fit.train(1)
        (child,) = Path(f"/proc/{fit.process.pid}/task/{fit.process.pid}/children").read_text().split()
        os.kill(int(child) if rank else fit.process.pid, signal.SIGTERM)
        assert fit.end() == 75, fit.said
        saved = fit.state()
        assert fit.said.count(f"Stopped by SIGTERM after {saved['litgan']['images_seen']:,} images") == 1
        assert saved["litgan"]["discriminator_updates"] == STEPS * saved["global_step"]
        clocks.append(saved["litgan"]["images_seen"])
        assert [path.name for path in (fit.folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert clocks == sorted(set(clocks)) and clocks[-1] < IMAGES


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a limit is set from outside: Linux")
def test_a_disk_that_is_full_for_a_while_changes_nothing(start, straight, tmp_path):
    """No file may have more than 6,000 bytes until a checkpoint was refused."""
    every = 50 * STEPS * BATCH
    fit = start(tmp_path / "runs", f"--checkpoint.every={every}", "--checkpoint.if_unsaved=continue")
    fit.wait_until(lambda: any(fit.root.glob("ring/*/checkpoints/last.ckpt")))
    resource.prlimit(fit.process.pid, resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
    refused = "last.ckpt cannot be saved (File too large): allow larger files (ulimit -f); what was saved"
    fit.wait_until(lambda: refused in fit.said)
    saved = fit.images_saved
    assert 0 < saved < IMAGES and saved % every == 0
    resource.prlimit(fit.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert fit.end() == 0, fit.said
    ends, rows = [], []
    for one in (fit, straight):
        ends.append(one.state()["state_dict"])
        rows.append({row["images_seen"] for row in read_metrics(one.folder / "metrics.csv")})
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    assert rows[0] <= rows[1] and max(rows[0]) == max(rows[1]), "those of that while may be lost"
