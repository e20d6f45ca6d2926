"""The laboratory: controlled experiments on what backpropagation carries from one adversary to the other."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from litgan.lab import experiments
from litgan.lab.experiments import Plan
from litgan.lab.figure import draw
from litgan.lab.games import DIGITS, FASHION, RING
from litgan.lab.verdicts import Verdict, judge

__all__ = ["Plan", "Verdict", "run"]

SHORT = Plan(((RING, 2),), levels=(4.0, 64.0), delays=(8, 64), iterations=250)
WHOLE = Plan(((RING, 5), (DIGITS, 1), (FASHION, 1)), iterations=None)


def run(out: Path, *, short: bool = False, say: Callable[[str], None] = print) -> list[Verdict]:
    """Plays all games on one CPU thread; writes results.json, verdicts.txt and figure.png into `out`.

    Args:
        out: folder to write to.
        short: two seeds and short runs on the ring alone, in about a minute.
        say: told what is being played.
    """
    began, threads = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _play(SHORT if short else WHOLE, say)
    finally:
        torch.set_num_threads(threads)
    verdicts = judge(found)
    out.mkdir(parents=True, exist_ok=True)
    seconds = time.process_time() - began
    record: dict[str, Any] = {"cpu_seconds": seconds, "torch": torch.__version__, **found}
    (out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    (out / "verdicts.txt").write_text(table(verdicts))
    draw(found, out / "figure.png")
    say(f"\n{table(verdicts)}\n{seconds / 60:.1f} CPU minutes; {out / 'figure.png'}, results.json beside it.")
    return verdicts


def table(verdicts: list[Verdict]) -> str:
    """One line a claim, and below it the numbers."""
    lines = [
        f"{'yes' if verdict.holds else 'NO ':3}  {verdict.claim}\n     {verdict.evidence}"
        for verdict in verdicts
    ]
    return "\n".join(lines) + "\n"


def _play(plan: Plan, say: Callable[[str], None]) -> dict[str, list[experiments.Row]]:
    arenas = []
    for arena, seeds in plan.arenas:
        try:
            arena.data(0).load("train")
        except (OSError, RuntimeError) as error:  # data that have to be installed or downloaded
            say(f"{arena.name} is left out: {error}")
        else:
            arenas.append((arena, seeds))
    plan = Plan(tuple(arenas), plan.levels, plan.delays, plan.iterations)
    return {
        "feedback": experiments.feedback(plan, say),
        "starvation": experiments.starvation(),
        "penalties": experiments.penalties(plan, say),
        "dirac": experiments.dirac(),
    }
