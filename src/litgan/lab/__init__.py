"""The laboratory: controlled experiments on what backpropagation carries from one adversary to the other."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from litgan.lab import experiments
from litgan.lab.experiments import Plan
from litgan.lab.figure import draw
from litgan.lab.games import DIGITS, FASHION, RING
from litgan.lab.verdicts import Verdict, ends, judge, mean_and_error

__all__ = ["Plan", "Verdict", "lab", "run", "table"]

SHORT = Plan(((RING, 2),), levels=(4.0, 64.0), delays=(2, 8), blocks=(1,), iterations=250)
WHOLE = Plan(((RING, 5), (DIGITS, 1), (FASHION, 1)))


def lab(short: bool = False, out: str = "lab") -> None:
    """Plays controlled experiments on the feedback between the adversaries: a table, a figure, verdicts.

    Args:
        short: only the smallest game, in about a minute instead of a quarter of an hour.
        out: folder to write to.
    """
    run(Path(out), short=short)


def run(out: Path, *, short: bool = False, say: Callable[[str], None] = print) -> list[Verdict]:
    """Plays all games on one CPU thread; writes results.json, results.md and figure.png into `out`.

    Args:
        out: folder to write to.
        short: two seeds of short runs on the ring alone, in about a minute.
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
    told = f"{table(found['feedback'])}\n\n{listed(verdicts)}\n"
    (out / "results.md").write_text(told)
    draw(found, out / "figure.png")
    say(f"\n{told}\n{seconds / 60:.1f} CPU minutes; figure.png, results.md and results.json are in {out}")
    return verdicts


def table(rows: list[experiments.Row]) -> str:
    """Markdown: mean distance after each treatment +- standard error, a column an arena."""
    arenas = {
        row["arena"]: len({other["seed"] for other in rows if other["arena"] == row["arena"]}) for row in rows
    }
    heads = [f"{name}, {seeds} seed{'s' * (seeds > 1)}" for name, seeds in arenas.items()]
    lines = [["distance from the data", *heads], ["---"] * (1 + len(heads))]
    starts = [
        [row["start"] for row in rows if (row["arena"], row["treatment"]) == (arena, "cut")]
        for arena in arenas
    ]
    lines.append(["at the start", *map(_cell, starts)])
    for name, dose in dict.fromkeys((row["treatment"], row["dose"]) for row in rows):
        lines.append(
            [
                f"{name} {dose:g}" if dose else name,
                *(_cell(ends(rows, arena, name, dose)) for arena in arenas),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(distances: list[float]) -> str:
    mean, error = mean_and_error(distances)
    return f"{mean:.3g} +- {error:.1g}" if len(distances) > 1 else f"{mean:.3g}"


def listed(verdicts: list[Verdict]) -> str:
    """Markdown: a point a claim, with the numbers."""
    return "\n".join(
        f"- {'yes' if verdict.holds else '**no**'}: {verdict.claim} {verdict.evidence}"
        for verdict in verdicts
    )


def _play(plan: Plan, say: Callable[[str], None]) -> dict[str, list[experiments.Row]]:
    arenas = []
    for arena, seeds in plan.arenas:
        try:
            arena.data(0).load("train")
        except (OSError, RuntimeError) as error:  # data that have to be installed or downloaded
            say(f"{arena.name} is left out: {error}")
        else:
            arenas.append((arena, seeds))
    plan = replace(plan, arenas=tuple(arenas))
    return {
        "feedback": experiments.feedback(plan, say),
        "starvation": experiments.starvation(),
        "penalties": experiments.penalties(plan, say),
        "dirac": experiments.dirac(),
    }
