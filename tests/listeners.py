"""Ranks that are killed, stopped or slow, and what the others do: `python listeners.py FOLDER`.

Every scenario is a real Trainer on forked ranks that beat every half second and wait for three. They
all run at the same time. What came of them is printed as one JSON object: for each scenario the exit
codes, the seconds from the deed to the last exit, and what each rank said on stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import workers
from lightning.pytorch import Callback, Trainer
from workers import POINTS, launch

from litgan import GAN
from litgan.data import Ring
from litgan.losses import Hinge
from litgan.strategies import AdversarialDDPStrategy

EVERY, PATIENCE = 0.5, 3.0  # seconds


class At(Callback):
    """Leaves a file at the fifth iteration, so that the deed can be done, and then does what it is told."""

    def __init__(self, mark: Path, scenario: Scenario) -> None:
        self.mark, self.scenario = mark, scenario

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 5:
            self.mark.touch()
            self.scenario.then()

    def teardown(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.is_global_zero:
            time.sleep(self.scenario.slow)


def deaf() -> None:
    """Waits as a collective operation does whose backend notices nothing."""
    time.sleep(60)


def fail(rank: int) -> None:
    if rank == workers.RANK:
        raise ValueError("This rank fails.")
    deaf()


def train_on() -> None:
    """Nothing: gloo notices by itself when a connection closes."""


def work(folder: Path, scenario: Scenario) -> None:
    """What one rank does, its stderr in a file."""
    os.dup2(os.open(folder / f"{workers.RANK}.err", os.O_WRONLY | os.O_CREAT), 2)
    trainer = Trainer(
        max_steps=scenario.steps, max_epochs=-1, accelerator="cpu", devices=workers.WORLD, logger=False,
        strategy=AdversarialDDPStrategy(beat_every=EVERY, patience=PATIENCE),
        callbacks=[At(folder / f"{workers.RANK}.ready", scenario)], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(GAN(loss=Hinge(), **POINTS), datamodule=Ring(batch_size=12, samples=48))


class Scenario(NamedTuple):
    """What ranks do at the fifth iteration, and which signals they get then."""

    then: Callable[[], None] = deaf
    signals: Mapping[int, signal.Signals] = MappingProxyType({})
    ranks: int = 2
    steps: int = 8
    slow: float = 0.0  # seconds that rank zero takes to end


PAUSE = "all ranks are stopped for a while"
SCENARIOS = {
    "rank 1 is killed": Scenario(signals={1: signal.SIGKILL}),
    "rank 0 is killed": Scenario(signals={0: signal.SIGKILL}),
    "rank 1 is killed while all train": Scenario(train_on, {1: signal.SIGKILL}, steps=10**6),
    "rank 2 of 3 is killed": Scenario(signals={2: signal.SIGKILL}, ranks=3),
    "rank 1 hangs": Scenario(signals={1: signal.SIGSTOP}),
    "rank 0 hangs": Scenario(signals={0: signal.SIGSTOP}),
    "rank 1 fails": Scenario(partial(fail, 1)),
    PAUSE: Scenario(partial(time.sleep, 2.0), {0: signal.SIGSTOP, 1: signal.SIGSTOP}),
    "rank 0 takes long to end": Scenario(train_on, slow=PATIENCE + 2.0),
}


def run_all(root: Path) -> dict[str, dict[str, Any]]:
    """Starts all scenarios, does the deeds, and waits for the ends."""
    started, since, seconds = {}, {}, {}
    for name, scenario in SCENARIOS.items():
        (root / name).mkdir()
        started[name] = launch(scenario.ranks, work, root / name, scenario)
    for name, processes in started.items():
        for rank in range(len(processes)):
            while not (root / name / f"{rank}.ready").exists():
                time.sleep(0.02)
        for rank, signum in SCENARIOS[name].signals.items():
            os.kill(processes[rank].pid, signum)
        since[name] = time.monotonic()
    while len(seconds) < len(SCENARIOS) and time.monotonic() < max(since.values()) + 60:
        for name, processes in started.items():
            late = time.monotonic() - since[name] > PATIENCE + 3.0
            if name not in seconds and all(
                process.exitcode is not None
                for rank, process in enumerate(processes)
                if SCENARIOS[name].signals.get(rank) != signal.SIGSTOP or name == PAUSE
            ):
                seconds[name] = time.monotonic() - since[name]
            if name in seconds or (name == PAUSE and late):
                for rank, process in enumerate(processes):
                    if SCENARIOS[name].signals.get(rank) == signal.SIGSTOP and process.exitcode is None:
                        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.05)
    return {name: account(root / name, processes, seconds.get(name)) for name, processes in started.items()}


def account(folder: Path, processes: list[Any], seconds: float | None) -> dict[str, Any]:
    """What came of one scenario; whoever is still there after all is killed, which its exit code tells."""
    for process in processes:
        process.join(20)
        process.kill()
    said = [(folder / f"{rank}.err").read_text() for rank in range(len(processes))]
    return {"codes": [process.exitcode for process in processes], "seconds": seconds, "said": said}


if __name__ == "__main__":
    print(json.dumps(run_all(Path(sys.argv[1]))))
