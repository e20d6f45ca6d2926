"""Runs killed with SIGKILL again and again, resumed, and compared with the run that nobody killed.

    python benchmarks/kill_storm.py [--kills 40] [--jobs 2] [--folder DIR]

Every process is a real `litgan fit`. Half of the kills come at a random moment of its life, start-up
included; half come while it saves, as soon as the temporary file of the checkpoint exists. The run resumes
with `--ckpt_path last`, or starts again if nothing was saved, until it ends; further runs follow until all
kills are used. Checked: every checkpoint loads after every kill; at most the work of one checkpoint interval
is lost; at the end there is no temporary file, and weights, optimizers and `images_seen` are those of the run
without kills, bit for bit. Exit code 1 if anything fails.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import measure
import torch

from litgan import checkpoints
from litgan.files import PARTIAL
from litgan.loggers import read_metrics

ITERATIONS, STEPS, BATCH, PERIOD = 48, 2, 32, 3  # PERIOD: iterations between two checkpoints
INTERVAL = PERIOD * STEPS * BATCH  # images
RECIPE = f"""
data: {{class_path: litgan.data.Ring, init_args: {{batch_size: {BATCH}, samples: 1000}}}}
model:
  generator:   # large for points: a checkpoint of 35 MB takes a moment to write
    class_path: litgan.networks.MLPGenerator
    init_args: {{latent_dim: 2, widths: [768, 768, 768]}}
  discriminator:
    class_path: litgan.networks.MLPDiscriminator
    init_args: {{widths: [768, 768, 768]}}
  loss: litgan.losses.NonSaturating
  penalties: [{{class_path: litgan.penalties.R1, init_args: {{weight: 0.01, interval: 3}}}}]
  generator_optimizer: {{class_path: torch.optim.Adam, init_args: {{lr: 1.0e-4}}}}
  discriminator_optimizer: {{class_path: torch.optim.Adam, init_args: {{lr: 1.0e-4}}}}
  discriminator_steps: {STEPS}
realism: {{every: 0}}
samples: {{every: 0}}
gradients: {{every: 0}}
checkpoint: {{every: {INTERVAL}, minutes: 0}}
trainer:
  accelerator: cpu
  precision: 32-true
  max_steps: {ITERATIONS}
  log_every_n_steps: 1
  enable_progress_bar: false
"""


@dataclass
class Run:
    """One run of the recipe, in a folder of its own, whatever number of processes it takes."""

    number: int
    home: Path
    threads: int
    killed: Counter[str] = field(default_factory=Counter)  # by where the kill landed
    starts: int = 0
    lost: int = 0  # images, at most
    faults: list[str] = field(default_factory=list)
    stale: set[Path] = field(default_factory=set)  # what earlier processes left half-written

    @property
    def folder(self) -> Path:
        return self.home / "kill_storm" / f"run-{self.number}"

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def said(self) -> Path:
        return self.home / "said"

    def start(self) -> subprocess.Popen[bytes]:
        """A process that begins the run or goes on with it."""
        self.home.mkdir(exist_ok=True)
        recipe = self.home / "kill_storm.yaml"
        recipe.write_text(RECIPE)
        command = [sys.executable, "-m", "litgan", "fit", f"--config={recipe}"]
        command += [f"--trainer.default_root_dir={self.home}"]
        command += ["--ckpt_path=last"] if self.last.exists() else []
        # The id keeps the run in one folder even when it begins anew; W&B would only add processes.
        own = {"LITGAN_RUN_ID": f"run-{self.number}", "WANDB_MODE": "disabled"}
        self.starts += 1
        self.stale = self.partials()
        with self.said.open("w") as out:
            environment = os.environ | own | {"OMP_NUM_THREADS": str(self.threads)}
            return subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)

    def partials(self) -> set[Path]:
        """Temporary files of checkpoints."""
        return set(self.folder.glob(f"checkpoints/.*{PARTIAL}"))

    def saving(self) -> bool:
        """Whether the process is writing, or was when it died: a temporary file that it did not find."""
        return bool(self.partials() - self.stale)

    def training(self) -> bool:
        """Whether this process has come through its start-up."""
        return self.said.exists() and str(self.folder) in self.said.read_text()

    def wait_until_training(self, process: subprocess.Popen[bytes]) -> None:
        """Returns when the start-up is over, or the process."""
        while process.poll() is None and not self.training():
            time.sleep(0.01)

    def undisturbed(self) -> tuple[float, float]:
        """Runs to the end: seconds of start-up, and those after it."""
        began, process = time.perf_counter(), self.start()
        self.wait_until_training(process)
        trains = time.perf_counter()
        self.check(process.wait())
        return trains - began, time.perf_counter() - trains

    def check(self, code: int) -> None:
        """A process that nobody killed ends well."""
        if code:
            self.faults.append(f"run {self.number} ended with code {code}: {self.said.read_text()[-500:]}")

    def wait_until_saving(self, process: subprocess.Popen[bytes], times: int) -> None:
        """Returns in the middle of a save, the `times`-th of this process, or when it ends."""
        before = False
        while process.poll() is None:
            now = self.saving()
            if now and not before:
                times -= 1
            if times == 0:
                return
            before = now
            time.sleep(0.001)

    def inspect(self) -> None:
        """After each kill: does every checkpoint load, and how much of what was logged is lost?"""
        saved = 0
        for path in self.folder.glob("checkpoints/*.ckpt"):
            try:
                saved = max(saved, checkpoints.read(path)["litgan"]["images_seen"])
            except Exception as error:
                self.faults.append(f"{path} does not load: {error}")
        metrics = self.folder / "metrics.csv"
        logged = read_metrics(metrics)[-1:] if metrics.exists() else []
        self.lost = max(self.lost, *(int(row["images_seen"]) - saved for row in logged), 0)

    def wait_at_random(
        self, process: subprocess.Popen[bytes], life: tuple[float, float], chance: random.Random
    ) -> None:
        """Returns at a moment that is uniform over a life, however busy the machine is, or when it ends."""
        start_up, training = life
        moment = chance.uniform(0, start_up + training)
        if moment > start_up:
            self.wait_until_training(process)
            moment -= start_up
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment)

    def storm(self, budget: Counter[str], life: tuple[float, float], chance: random.Random) -> None:
        """Kills the run until it has ended; takes each kill out of the budget, by where it landed."""
        while True:
            process = self.start()
            kind, left = budget.most_common(1)[0]
            try:
                if left <= 0:
                    process.wait()
                elif kind == "saving":
                    self.wait_until_saving(process, chance.randint(1, 4))
                else:
                    self.wait_at_random(process, life, chance)
            finally:
                process.kill()  # nothing, if it has ended
            code = process.wait()
            if code != -signal.SIGKILL:
                break
            saving = self.saving()
            budget["saving" if saving else "random"] -= 1
            self.killed["saving" if saving else "training" if self.training() else "start-up"] += 1
            self.inspect()
        self.check(code)
        if kind == "saving" and left > 0 and self.starts == 1:
            self.faults.append(f"run {self.number} was never seen saving: no temporary file appeared")

    def row(self, reference: Run) -> measure.Row:
        """What a run that has ended was found to be."""
        alike = False
        with suppress(FileNotFoundError, ValueError):  # nothing was saved, or nothing that loads
            alike = same(future(self.last), future(reference.last))
        leftover = list(self.home.rglob(f".*{PARTIAL}"))
        if not alike:
            self.faults.append(f"run {self.number} did not end as the run nobody killed")
        if self.lost > INTERVAL:
            self.faults.append(f"run {self.number} lost {self.lost} images, more than {INTERVAL}")
        if leftover:
            self.faults.append(f"run {self.number} left {', '.join(path.name for path in leftover)}")
        kills = {f"killed in {place}": self.killed[place] for place in ("start-up", "training", "saving")}
        return {
            "run": self.number, "processes": self.starts, **kills, "images lost at most": self.lost,
            "temporary files left": len(leftover), "bit-identical": alike,
        }  # fmt: skip


def future(path: Path) -> dict[str, Any]:
    """What a run's future depends on, from its checkpoint."""
    found = checkpoints.read(path)
    clock = {key: found["litgan"][key] for key in ("images_seen", "discriminator_updates")}
    return {key: found[key] for key in ("state_dict", "optimizer_states", "global_step")} | clock


def same(left: Any, right: Any) -> bool:
    """Equality bit for bit of nested containers; the sign of a zero counts."""
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and left.numpy().tobytes() == right.numpy().tobytes()
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def storm(home: Path, kills: int, jobs: int, threads: int) -> tuple[list[measure.Row], list[str]]:
    """A row for each run, and every fault found."""
    reference = Run(0, home / "0", threads)
    life = reference.undisturbed()
    print(f"The run nobody kills took {life[0]:.1f} s to start and {life[1]:.1f} s to train.", flush=True)
    if reference.faults:
        return [], reference.faults
    numbers = count(1)

    def job(number: int) -> list[Run]:
        share = kills // jobs + (number < kills % jobs)
        budget, runs = Counter(random=share - share // 2, saving=share // 2), list[Run]()
        while max(budget.values()) > 0 and not any(run.faults for run in runs):
            runs.append(run := Run(next(numbers), home / f"{number}-{len(runs)}", threads))
            run.storm(budget, life, random.Random(run.number))
            print(f"Run {run.number} ended after {run.killed.total()} kills.", flush=True)
        return runs

    with ThreadPoolExecutor(jobs) as pool:
        runs = sorted((run for part in pool.map(job, range(jobs)) for run in part), key=lambda it: it.number)
    rows = [run.row(reference) for run in runs]
    return rows, [fault for run in runs for fault in run.faults]


def main() -> None:
    parser = measure.options(__doc__, __file__)
    parser.add_argument("--kills", type=int, default=40, help="at least so many; --quick: 2")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    parser.add_argument("--folder", type=Path, help="where to run; by default a temporary folder")
    options = measure.parse(parser)
    kills, jobs = (2, 1) if options.quick else (options.kills, options.jobs)
    threads = options.threads or max(1, torch.get_num_threads() // jobs)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        rows, faults = storm(Path(folder), kills, jobs, threads)
    total = (
        {key: sum(row[key] for row in rows) for key in rows[0] if key.startswith("killed")} if rows else {}
    )
    summary = {
        "kills": sum(total.values()), **total, "runs": len(rows), "checkpoint interval": INTERVAL,
        "minutes": (time.perf_counter() - began) / 60, "faults": faults,
    }  # fmt: skip
    print(measure.table(rows) if rows else "No run ended.")
    print(", ".join(f"{key} {value}" for key, value in summary.items() if key != "faults"))
    measure.write(options, {"rows": rows, "summary": summary})
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
