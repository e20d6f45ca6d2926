"""Benchmarks in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks"


def run(name: str, *options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, options)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=500
    )


def quick(name: str, out: Path, *options: object) -> dict[str, Any]:
    """The result of a benchmark's quick form."""
    done = run(name, "--quick", "--threads", 1, "--out", out, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(out.read_text())
