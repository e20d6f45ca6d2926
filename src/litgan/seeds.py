"""Several seeds of one recipe: `litgan fit --seeds 0,1,2 ...` trains one run after the other.

Each run is a process of its own, in a folder of its own; all are one group in W&B. The same command given
again continues the run that was interrupted and skips those that have finished.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PACKAGE = __name__.partition(".")[0]
SUMMARY = "summary.json"  # in the folder of a run that has finished
RUN_ID = f"{PACKAGE.upper()}_RUN_ID"
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
STOPPED = (75, 130)  # exit codes of a run that was interrupted and saved


def take_seeds(arguments: Sequence[str]) -> tuple[list[int], list[str]]:
    """The numbers after `--seeds`, none if it is not given, and the other arguments.

    Raises ValueError: naming what is no list of different integers.
    """
    seeds: list[int] = []
    others, words = [], iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if option != "--seeds":
            others.append(word)
            continue
        value = value if equals else next(words, "")
        try:
            seeds = [int(part) for part in value.split(",")]
        except ValueError as error:
            raise ValueError(f"--seeds is {value!r}: give integers such as 0,1,2.") from error
        if len(set(seeds)) < len(seeds) or not 0 <= min(seeds) <= max(seeds) < 2**32:
            raise ValueError(f"--seeds is {value!r}: give different integers from 0 to {2**32 - 1:,}.")
    return seeds, others


def fit_seeds(seeds: Sequence[int], arguments: Sequence[str]) -> int:
    """Trains the runs, prints a table of their distances, and gives the exit code.

    Returns:
        0 if all have finished; 1 if one has failed, which is named; 75 or 130 if one was interrupted.
    """
    if "RANK" in os.environ:
        raise ValueError("--seeds starts its own processes: run it without torchrun, once.")
    group = f"seeds-{hashlib.blake2b(json.dumps(list(arguments)).encode(), digest_size=4).hexdigest()}"
    root, failed = root_folder(arguments), []
    for seed in seeds:
        if finished(root, f"{group}-{seed}"):
            continue
        print(f"seed {seed}", flush=True)
        code = run(seed, f"{group}-{seed}", group, arguments)
        if code in STOPPED:
            print(f"seed {seed} was interrupted: the same command continues it.", flush=True)
            return code
        if code:
            failed.append(seed)
    found = {seed: finished(root, f"{group}-{seed}") for seed in seeds}
    print(table({seed: summary for seed, summary in found.items() if summary}))
    if failed:
        print(f"{PACKAGE}: error: seeds that failed: {', '.join(map(str, failed))}", file=sys.stderr)
    return 1 if failed else 0


def root_folder(arguments: Sequence[str]) -> Path:
    """`trainer.default_root_dir` of the command line or its recipes; the last one counts."""
    root = "runs"
    for place, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        value = value if equals else "".join(arguments[place + 1 : place + 2])
        if option in ("--config", "-c"):
            recipe = yaml.safe_load(Path(value).read_text(encoding="utf-8")) or {}
            root = (recipe.get("trainer") or {}).get("default_root_dir") or root
        elif option == "--trainer.default_root_dir":
            root = value
    return Path(root)


def finished(root: Path, run_id: str) -> dict[str, Any] | None:
    """What a finished run says of itself, None before."""
    for path in root.glob(f"*/{run_id}/{SUMMARY}"):
        return {**json.loads(path.read_text()), "folder": str(path.parent)}
    return None


def run(seed: int, run_id: str, group: str, arguments: Sequence[str]) -> int:
    """Trains one run in a process of its own, which gets the signals of this one; its exit code."""
    command = [sys.executable, "-m", PACKAGE, "fit", *arguments, f"--seed_everything={seed}"]
    environment = {"WANDB_RUN_GROUP": group, **os.environ, RUN_ID: run_id}
    # In a session of its own Ctrl-C does not reach it twice, from the terminal and from here.
    child = subprocess.Popen(
        command, env=environment, start_new_session=True, preexec_fn=end_with_parent
    )  # fmt: skip
    numbers = [getattr(signal, name) for name in FORWARDED if hasattr(signal, name)]
    before = {one: signal.signal(one, lambda got, _: child.send_signal(got)) for one in numbers}
    try:
        return child.wait()
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def end_with_parent() -> None:
    """On Linux, this process gets SIGTERM, saves and ends, when its parent ends, even if that is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


def table(found: dict[int, dict[str, Any]]) -> str:
    """A line for each seed, then mean and standard deviation of the distances."""
    lines = []
    for seed, summary in found.items():
        line = f"seed {seed:<4}"
        if "metric" in summary:
            line += f" {summary['metric']} {summary['value']:.4g}, best {summary['best']:.4g},"
        lines.append(f"{line} in {summary['folder']}")
    for name in ("value", "best"):
        values = [summary[name] for summary in found.values() if name in summary]
        if len(values) > 1:
            mean, spread = statistics.mean(values), statistics.stdev(values)
            lines.append(f"{name} of {len(values)} seeds: mean {mean:.4g}, standard deviation {spread:.2g}")
    return "\n".join(lines)
