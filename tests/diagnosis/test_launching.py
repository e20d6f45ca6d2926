"""The command line on two ranks of torchrun that roll back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from litgan.checkpoints import read

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.spawn
def test_ranks_of_torchrun_roll_back_to_the_checkpoint_of_their_run(tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "litgan", "fit", "--config", f"{CONFIGS}/ring.yaml", "--config", f"{CONFIGS}/overlays/ddp.yaml",
        "--trainer.accelerator=cpu", "--trainer.devices=2", "--data.batch_size=32", "--trainer.max_steps=4",
        "--samples.every=0", "--gradients.every=0", f"--trainer.default_root_dir={tmp_path}",
        "--model.generator_optimizer.lr=1e-30", "--health.every=64", "--health.patience=1",
        "--health.policy=rollback", "--health.tries=1",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("LITGAN_RUN_ID")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "ring").iterdir()
    events = [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]
    assert [event["verdict"] for event in events] == ["VANISHED", "ROLLED BACK", "VANISHED"]
    assert read(folder / "checkpoints" / "last.ckpt")["litgan"]["images_seen"] == 128
