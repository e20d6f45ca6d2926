"""Whether the tests stand in a git repository, as a clone does and an unpacked archive does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def is_repository() -> bool:
    try:
        return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True).returncode == 0
    except FileNotFoundError:  # no git
        return False


needs_repository = pytest.mark.skipif(not is_repository(), reason="needs git and the repository")
