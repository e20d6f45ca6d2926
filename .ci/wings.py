"""Checks that the project stays green without each of its wings, and a new project with each, none and all.

python .ci/wings.py            every wing, in a copy of the tracked files
python .ci/wings.py sound      this one
python .ci/wings.py --guards   every wing, and new projects with none and all; only the tests that guard them

Without `--guards` the whole quick round runs in a new project with no wing and in one with all. What a wing
owns is said in src/litgan/new/__init__.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
from litgan.new import WINGS, copy, delete, new, tracked_files  # noqa: E402

CACHE = ".mypy_cache"
NAME = "mygan"
OPTIONS = ("-q", "-x", "-p", "no:cacheprovider", "--disable-warnings")
OPTIONS += ("-m", "not train and not spawn and not heavy")  # as `make test`
GUARDS = "test_architecture or test_readme or test_cli or first_line or is_known"  # of all tests, by name


def run(tree: Path, what: str, *command: str) -> None:
    """Runs a tool of the project's environment in a tree; what it prints is shown if it fails."""
    started = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    color = "red" if result.returncode else "green"
    print(f"  {what}: {color}, {time.monotonic() - started:.0f} s", flush=True)
    if result.returncode:
        print(result.stdout[-8000:], result.stderr[-4000:])
        sys.exit(f"{what} failed")


def check(tree: Path, *tests: str) -> None:
    """Linter, types and tests of a tree, two at a time; `tests` are arguments of pytest."""
    tools = {
        "types": ("mypy",), "tests": ("pytest", *OPTIONS, *tests), "lint": ("ruff", "check", "."),
        "format": ("ruff", "format", "--check", "."),
    }  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda what: run(tree, what, sys.executable, "-m", *tools[what]), tools))


def main(chosen: list[str], guards: bool) -> None:
    files = tracked_files()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "project"  # always the same place: mypy's cache serves all
        cache = tree / CACHE
        if (ROOT / CACHE).is_dir():
            shutil.copytree(ROOT / CACHE, cache)
        for wing in chosen or WINGS:
            copy(files, tree)
            print(f"without {wing}", flush=True)
            delete(tree, wing)
            check(tree, "-k", GUARDS)
        for wings in chosen or (("", "all") if guards else ("", *WINGS, "all")):
            print(f"a new project with {wings or 'no wing'}", flush=True)
            cache.rename(Path(folder) / CACHE)
            shutil.rmtree(tree)
            new(str(tree), NAME, wings)
            (Path(folder) / CACHE).rename(cache)
            if wings in ("", "all"):
                check(tree, *(("-k", GUARDS) if guards else ("-n", "2", "--dist", "worksteal")))
            else:
                check(tree, "-k", f"/{wings}/ or {GUARDS}")


if __name__ == "__main__":
    main([name for name in sys.argv[1:] if name != "--guards"], "--guards" in sys.argv)
