"""Runs the blocks of a page of docs/."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import litgan

DOCS = Path(__file__).parents[2] / "docs"
PACKAGE = litgan.__name__
COMMAND = f"#!{sys.executable}\nfrom {PACKAGE}.cli import main\nmain()\n"


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def environment(folder: Path, source: Path) -> dict[str, str]:
    """Variables under which `litgan` and `python` use the package in `source`; scripts go to `folder`."""
    folder.mkdir()
    scripts = {PACKAGE: COMMAND, "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n'}
    for name, script in scripts.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(source),
        "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline",
    }  # fmt: skip


def run(block: str, folder: Path, environment: dict[str, str]) -> str:
    """Writes a block that begins with the name of a file, or runs it in `folder` and returns its output."""
    if name := re.match(r"# ([\w/]+\.\w+)\n", block):
        (folder / name[1]).write_text(block)
        return ""
    command = ["bash", "-ec", block]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
