"""The lab: controlled experiments on the feedback dL/dx that the discriminator sends to the generator."""

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

from litgan.files import check_output, writing_output
from litgan.lab import experiments
from litgan.lab.claims import Claim, check_claims, final_distances, mean_and_error
from litgan.lab.experiments import Plan
from litgan.lab.figure import draw
from litgan.lab.setups import DIGITS, FASHION, RING

__all__ = ["Claim", "Plan", "lab", "run", "table"]

SHORT = Plan(((RING, 2),), levels=(4.0, 64.0), delays=(2, 8), blocks=(1,), iterations=250)
FULL = Plan(((RING, 5), (DIGITS, 1), (FASHION, 1)))


def lab(short: bool = False, out: str = "lab") -> None:
    """Runs experiments on the feedback dL/dx; writes a table, a figure and checked claims.

    Args:
        short: run only the ring, in about a minute instead of a quarter of an hour.
        out: folder to write to.
    """
    check_output(out, folder=True)
    run(Path(out), short=short)


def run(out: Path, *, short: bool = False, log: Callable[[str], None] = print) -> list[Claim]:
    """Runs all experiments on one CPU thread; writes results.json, results.md and figure.png into `out`.

    Args:
        out: folder to write to.
        short: two seeds of short runs on the ring, in about a minute.
        log: called with progress messages.
    """
    started, threads = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _run_experiments(SHORT if short else FULL, log)
    finally:
        torch.set_num_threads(threads)
    claims = check_claims(found)
    seconds = time.process_time() - started
    record: dict[str, Any] = {"cpu_seconds": seconds, "torch": torch.__version__, **found}
    text = f"{table(found['feedback'])}\n\n{claims_list(claims, short)}\n"
    log(f"\n{text}\n{seconds / 60:.1f} CPU minutes")  # first: writing may fail
    with writing_output(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(record, indent=1) + "\n")
        (out / "results.md").write_text(text)
        draw(found, out / "figure.png")
    log(f"figure.png, results.md and results.json are in {out}")
    return claims


def table(rows: list[experiments.Row]) -> str:
    """Returns a Markdown table: mean final distance +- standard error, one column per setup."""
    setups = {
        row["setup"]: len({other["seed"] for other in rows if other["setup"] == row["setup"]}) for row in rows
    }
    headers = [f"{name}, {seeds} seed{'s' * (seeds > 1)}" for name, seeds in setups.items()]
    lines = [["distance from the data", *headers], ["---"] * (1 + len(headers))]
    starts = [
        [row["start"] for row in rows if (row["setup"], row["transform"]) == (setup, "zero")]
        for setup in setups
    ]
    lines.append(["at the start", *map(_cell, starts)])
    for name, amount in dict.fromkeys((row["transform"], row["amount"]) for row in rows):
        lines.append(
            [
                f"{name} {amount:g}" if amount else name,
                *(_cell(final_distances(rows, setup, name, amount)) for setup in setups),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(distances: list[float]) -> str:
    mean, error = mean_and_error(distances)
    return f"{mean:.3g} +- {error:.1g}" if len(distances) > 1 else f"{mean:.3g}"


def claims_list(claims: list[Claim], short: bool) -> str:
    """Returns a Markdown list of the claims with their evidence; short training runs refute none."""
    lines = []
    for claim in claims:
        refuted = "not decided at this length" if short and claim.trained else "**no**"
        lines.append(f"- {'yes' if claim.holds else refuted}: {claim.statement} {claim.evidence}")
    return "\n".join(lines)


def _run_experiments(plan: Plan, log: Callable[[str], None]) -> dict[str, list[experiments.Row]]:
    setups = []
    for setup, seeds in plan.setups:
        try:
            setup.data(0).load("train")
        except (OSError, RuntimeError) as error:  # not installed or downloaded
            log(f"{setup.name} is left out: {error}")
        else:
            setups.append((setup, seeds))
    plan = replace(plan, setups=tuple(setups))
    return {
        "feedback": experiments.feedback(plan, log),
        "loss_gradients": experiments.loss_gradients(),
        "penalties": experiments.penalties(plan, log),
        "dirac": experiments.dirac(),
    }
