"""Whole commands on several processes: torchrun on two "machines", Lightning's launcher, and their ends.

The machines are two torchrun agents on loopback that meet at a rendezvous; processes are real, and killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

from litgan import GAN
from litgan.checkpoints import read

CONFIGS = Path(__file__).parents[1] / "configs"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
RING = [
    "-m", "litgan", "fit", f"--config={CONFIGS}/ring.yaml", f"--config={CONFIGS}/overlays/ddp.yaml",
    "--trainer.accelerator=cpu", "--data.batch_size=32", "--samples.every=0", "--gradients.every=0",
    "--checkpoint.every=640",
]  # fmt: skip


class Started:
    """A command, with what it says, and all processes that it has started by the time it is asked."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
        environment.pop("LITGAN_RUN_ID", None)
        with log.open("w") as out:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def family(self) -> dict[int, str]:
        """Process ids and command lines: this one's and those of its descendants."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True)
        rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
        found = {self.process.pid}
        while new := {int(pid) for pid, ppid, *_ in rows if int(ppid) in found} - found:
            found |= new
        return {int(pid): "".join(args) for pid, _, *args in rows if int(pid) in found}


def remaining(processes: dict[int, str]) -> dict[int, str]:
    """Those that are still there, and no zombies that only wait to be asked for their exit code."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,stat="], capture_output=True, text=True).stdout
    alive = {int(pid) for pid, state in map(str.split, listed.splitlines()) if not state.startswith("Z")}
    return {pid: command for pid, command in processes.items() if pid in alive}


def wait_until(condition: Callable[[], object], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[list[str]], Started]]:
    """Starts commands; nothing of them outlives the test."""
    commands: list[Started] = []

    def begin(command: list[str]) -> Started:
        commands.append(Started(command, tmp_path / f"{len(commands)}.log"))
        return commands[-1]

    yield begin
    for command in commands:
        for pid in remaining(command.family()):
            os.kill(pid, signal.SIGKILL)


def checkpoints_in(root: Path) -> list[Path]:
    return sorted(root.glob("ring/*/checkpoints/*"))


def ranks_of(command: Started) -> list[int]:
    """The processes that train, in order of their start."""
    return sorted(pid for pid, args in command.family().items() if "litgan" in args and "torch" not in args)


@pytest.mark.spawn
def test_two_machines_make_one_run_continue_it_and_end_when_one_rank_dies(start, tmp_path):
    def begin(*options: str) -> list[Started]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = f"127.0.0.1:{free.getsockname()[1]}"
        rendezvous = ["--rdzv-backend", "c10d", "--rdzv-endpoint", meeting, "--rdzv-id", "ring"]
        agent = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", *rendezvous, *RING]
        machines = ["--trainer.num_nodes=2", "--trainer.devices=1", f"--trainer.default_root_dir={tmp_path}"]
        return [start([*agent, *machines, *options]) for _ in range(2)]

    nodes = begin("--trainer.max_steps=40")
    assert [node.process.wait(120) for node in nodes] == [0, 0], nodes[0].said + nodes[1].said
    assert [path.name for path in checkpoints_in(tmp_path)] == ["last.ckpt"]
    assert len(list(tmp_path.glob("ring/*"))) == 1
    (last,) = checkpoints_in(tmp_path)
    assert read(last)["litgan"]["images_seen"] == 40 * 32
    assert sum(node.said.count("on 2 x cpu") for node in nodes) == 1

    nodes = begin("--trainer.max_steps=1000000", "--ckpt_path=last")
    wait_until(lambda: read(last)["litgan"]["images_seen"] > 40 * 32)
    assert checkpoints_in(tmp_path) == [last]
    family = nodes[0].family() | nodes[1].family()
    (rank,) = ranks_of(nodes[1])
    os.kill(rank, signal.SIGKILL)
    assert [node.process.wait(120) for node in nodes] == [1, 1]
    wait_until(lambda: not remaining(family), 20)


@pytest.mark.spawn
@pytest.mark.skipif(sys.platform != "linux", reason="the system tells a process that its parent has ended")
def test_ranks_save_and_end_when_torchruns_agent_is_killed(start, tmp_path):
    options = ["--trainer.devices=2", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_steps=1000000"]
    agent = start([*TORCHRUN, "--standalone", "--nproc-per-node", "2", *RING, *options])
    wait_until(lambda: checkpoints_in(tmp_path))
    family = agent.family()
    assert len(ranks_of(agent)) == 2
    agent.process.kill()
    wait_until(lambda: not remaining(family), 60)
    assert agent.said.count("Stopped by SIGTERM after") == 1, agent.said
    (last,) = checkpoints_in(tmp_path)
    assert f"after {read(last)['litgan']['images_seen']:,} images" in agent.said


@pytest.mark.spawn
def test_lightnings_launcher_leaves_nobody_behind_when_a_rank_dies_or_hangs(start, tmp_path):
    """Rank zero, which launched the other, is killed; and rank one is stopped, which SIGKILL alone ends."""
    strategy = ["--trainer.strategy=litgan.strategy.AdversarialDDPStrategy"]
    strategy += ["--trainer.strategy.timeout_minutes=1"]
    runs = []
    for lost in (0, 1):
        options = ["--trainer.devices=2", f"--trainer.default_root_dir={tmp_path}/{lost}", *strategy]
        runs.append(start([sys.executable, *RING, *options, "--trainer.max_steps=1000000"]))
    for lost, (run, signum) in enumerate(zip(runs, (signal.SIGKILL, signal.SIGSTOP), strict=True)):
        wait_until(lambda root=tmp_path / str(lost): checkpoints_in(root))
        family, ranks = run.family(), ranks_of(run)
        assert len(ranks) == 2
        os.kill(ranks[lost], signum)
        assert run.process.wait(240) == (1 if lost else -signal.SIGKILL), run.said
        wait_until(lambda family=family: not remaining(family), 60)


COMMANDS = """
import sys
from litgan import cli, processes

checkpoint, out = sys.argv[1:]
with processes.init_distributed():  # one process group serves both
    cli.main(["evaluate", checkpoint, "--count", "700", "--out", f"{out}/metrics.json"])
    cli.main(["sample", checkpoint, "--count", "600", "--seed", "3", "--labels", "1,7", "--out", out])
"""


@pytest.mark.spawn
def test_ranks_evaluate_and_sample_together_what_one_process_does(start, digits_run, tmp_path):
    checkpoint = str(digits_run.checkpoint)
    script = tmp_path / "commands.py"
    script.write_text(COMMANDS)
    together = tmp_path / "together"
    command = start([
        *TORCHRUN, "--standalone", "--nproc-per-node", "2", str(script), checkpoint, str(together),
    ])  # fmt: skip
    alone = StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(alone):
        patch.setenv("LITGAN_CACHE", str(tmp_path / "cache"))  # the ranks measure the reals together
        patch.setattr(sys, "argv", ["", checkpoint, str(tmp_path / "alone")])
        exec(COMMANDS, {})
    assert command.process.wait(120) == 0, command.said

    lines = [line for line in command.said.splitlines() if line.startswith(("{", str(tmp_path)))]
    assert len(lines) == len(alone.getvalue().splitlines()) == 2, "rank zero alone speaks"
    one, both = json.loads(alone.getvalue().splitlines()[0]), json.loads(lines[0])
    assert both["protocol"] == one["protocol"]
    keys = [key for key in one if key.startswith("metric/")]
    assert [both[key] for key in keys] == pytest.approx([one[key] for key in keys], rel=1e-6)
    assert json.loads((together / "metrics.json").read_text()) == both
    expected = GAN.load_from_checkpoint(checkpoint).sample(600, seed=3, condition=[1, 7])
    for folder in (together, tmp_path / "alone"):
        assert torch.equal(torch.load(folder / "samples_seed3.pt"), expected)
    picture = "samples_seed3.png"
    assert (together / picture).read_bytes() == (tmp_path / "alone" / picture).read_bytes()
