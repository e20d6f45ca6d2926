"""What the benchmarks share: the machine, pairs measured in turns, a table, a JSON file.

    python benchmarks/measure.py        prints the machine

Times are compared within one process, A B A B, so that what disturbs the machine disturbs both sides; a
ratio is the median of the ratios of neighboring blocks. A figure is a median with its quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

Row: TypeAlias = dict[str, Any]  # one line of a table: column to value
FOLDER = Path(__file__).resolve().parent


def machine() -> dict[str, Any]:
    """Where a figure comes from: processor, cores in use, instructions that decide, GPU, torch, date."""
    probes = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    cuda = torch.cuda.is_available()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "cpu": next(names, platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": [name for name, probe in probes.items() if getattr(torch.cpu, probe, bool)()],
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def describe(found: Mapping[str, Any]) -> str:
    """`machine()` in one line."""
    instructions = "/".join(found["instructions"]) or "without bf16 instructions"
    gpu = f"{found['gpu']} (CUDA {found['cuda']}), " if found["gpu"] else ""
    cpu = f"{found['cpu']} ({instructions}), {found['threads']} threads on {found['cores']} cores"
    return f"{gpu}{cpu}, torch {found['torch']}, {found['date']}"


def in_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int = 7, number: int = 1, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds a call, of each side and block: A B A B for so many rounds, after some that do not count.

    Args:
        sides: name to what is timed; it waits for its device itself.
        rounds: blocks of each side.
        number: calls in a block.
        warm_up: blocks of each side that are thrown away.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_up + rounds):
        for name, call in sides.items():
            began = time.perf_counter()
            for _ in range(number):
                call()
            if turn >= warm_up:
                seconds[name].append((time.perf_counter() - began) / number)
    return seconds


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lower and upper quartile; of fewer than four values: median, least and greatest."""
    if len(values) < 4:
        return statistics.median(values), min(values), max(values)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return median, lower, upper


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Ratio of the two sides in each round."""
    return [a / b for a, b in zip(numerator, denominator, strict=True)]


def show(values: Sequence[float], scale: float = 1.0) -> str:
    """`median (lower to upper)`, each times `scale`."""
    median, lower, upper = (_cell(scale * value) for value in spread(values))
    return f"{median} ({lower} to {upper})"


def table(rows: Sequence[Row]) -> str:
    """Plain text, one column per key, numbers to the right; a key that a row lacks stays empty."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns = []
    for key in keys:
        cells = [key, *(_cell(row.get(key)) for row in rows)]
        adjust = str.ljust if any(isinstance(row.get(key), str) for row in rows) else str.rjust
        columns.append([adjust(cell, max(map(len, cells))) for cell in cells])
    head, *body = ("  ".join(line).rstrip() for line in zip(*columns, strict=True))
    return "\n".join([head, "-" * max(map(len, [head, *body])), *body])


def _cell(value: Any) -> str:
    """Four significant digits of a float, whole above 1000; anything else as it is."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else f"{value:,}" if type(value) is int else str(value)


def options(doc: str, script: str) -> argparse.ArgumentParser:
    """The command line that all benchmarks have; of a script's __doc__ and __file__."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    relative = Path(script).resolve().relative_to(FOLDER)  # a wing's script lies in a folder of its own
    result = FOLDER / "results" / relative.with_suffix(".json")
    parser.add_argument("--quick", action="store_true", help="seconds, only to see it run")
    parser.add_argument("--out", type=Path, help=f"JSON; by default {result}, with --quick none")
    parser.add_argument("--threads", type=int, help="of torch; by default as many as torch takes")
    parser.set_defaults(script=f"benchmarks/{relative}", result=result)
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed command line, after `setup`."""
    return setup(parser.parse_args(arguments))


def setup(parsed: argparse.Namespace) -> argparse.Namespace:
    """Sets the threads and the path of the result, and prints the machine."""
    if parsed.threads:
        torch.set_num_threads(parsed.threads)
    if parsed.out is None and not parsed.quick:
        parsed.out = parsed.result
    print(describe(machine()), flush=True)
    return parsed


def write(parsed: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Writes command, machine and `result` to --out, if there is one."""
    if parsed.out is None:
        return
    parsed.out.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", parsed.script, *sys.argv[1:]])
    parsed.out.write_text(json.dumps({"command": command, "machine": machine(), **result}, indent=1) + "\n")
    print(f"Written to {parsed.out}.")


if __name__ == "__main__":
    print(describe(machine()))
