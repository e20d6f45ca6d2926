"""Runs recipes on a simulated CUDA device, each in a process of its own, and says what is wrong with them.

torch's CUDA build finds a device because a small library answers in the place of CUDA's. Nothing is computed
there: shapes, types, devices, operations and waits are those of a real one, values and times are not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torchgen
import yaml

HERE = Path(__file__).parent
SLACK = 1.25  # by which the number of launches may differ from the one that is noted
ON_CUDA_ONLY = {  # one operation here, others with Metal kernels there
    "cudnn_batch_norm", "_thnn_fused_gru_cell", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
}  # fmt: skip


class Iteration(NamedTuple):
    operations: dict[str, int]  # that started kernels, and how often
    mistakes: dict[str, int]

    @property
    def launches(self) -> int:
        return sum(self.operations.values())


def build(folder: Path) -> Path:
    """Compiles the library; skips the test where that cannot be done."""
    if shutil.which("g++") is None or not sys.platform.startswith("linux") or not torch.version.cuda:
        pytest.skip("needs Linux, g++ and torch's CUDA build")
    library = folder / "libdevice.so"
    called = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(HERE / "device.cpp")]
    subprocess.run(["g++", *called], check=True)
    return library


def simulate(library: Path, *options: str | Path) -> list[Iteration]:
    """The first two iterations of a recipe, given as to `litgan fit`."""
    environment = os.environ | {
        "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"
    }  # fmt: skip
    command = [sys.executable, "-m", "shared.simulation.fit", *map(str, options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return [Iteration(*found) for found in json.loads(done.stdout.splitlines()[-1])]


def complaints(iterations: list[Iteration], launches: tuple[int, ...]) -> Iterator[str]:
    """What is wrong with them, given the number of launches that was measured for each."""
    for number, (iteration, noted) in enumerate(zip(iterations, launches, strict=True)):
        yield from iteration.mistakes
        for operation in iteration.operations:
            if not has_metal_kernel(operation.removesuffix(".default")):
                yield f"{operation} has no Metal kernel"
        if not noted / SLACK <= iteration.launches <= noted * SLACK:
            yield f"{iteration.launches} launches in iteration {number}, not {noted}"


def has_metal_kernel(operation: str) -> bool:
    """Whether Metal has it, or it is composed of others."""
    if operation.removesuffix("_backward") in ON_CUDA_ONLY:
        return True
    entry = native_functions()[operation]
    if "structured_delegate" in entry:
        return has_metal_kernel(entry["structured_delegate"])
    keys = [key for group in entry.get("dispatch", {"Composite": ""}) for key in group.split(", ")]
    return any(key == "MPS" or key.startswith("Composite") for key in keys)


@cache
def native_functions() -> dict[str, dict[str, str]]:
    """The entries of torch's own table of operations by their names."""
    path = Path(torchgen.__file__).parent / "packaged" / "ATen" / "native" / "native_functions.yaml"
    entries = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry["func"].split("(")[0]: entry for entry in entries}
