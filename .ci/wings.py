"""Cuts off one wing at a time, then all of them, and checks that the rest stays green.

python .ci/wings.py            every wing, in a copy of the tracked files
python .ci/wings.py sound      this one

A wing owns src/litgan/WING, the folders WING in configs, tests, notebooks and benchmarks, docs/WING.md; in
Markdown, lines that end with `<!-- wing: WING -->` and what stands between such a line of its own and
`<!-- end: WING -->`; elsewhere, lines that end with `# wing: WING`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = next(path.parent.name for path in (ROOT / "src").glob("*/__init__.py"))
WINGS = ("zoo", "text", "sound", "music", "lab", "diagnosis")
CACHE = ".mypy_cache"
QUICK = "not train and not spawn and not heavy"  # as `make test`
GUARDS = "test_architecture or test_readme or test_cli or first_line or is_known"  # of all tests, by name


def delete(tree: Path, wing: str) -> None:
    """Deletes a wing and what it owns from a tree of the project."""
    for folder in (f"src/{PACKAGE}", "configs", "tests", "notebooks", "benchmarks"):
        shutil.rmtree(tree / folder / wing, ignore_errors=True)
    (tree / "docs" / f"{wing}.md").unlink(missing_ok=True)
    block = re.compile(rf"<!-- wing: {wing} -->\n.*?<!-- end: {wing} -->\n", re.DOTALL)
    row, line = re.compile(rf".+<!-- wing: {wing} -->\n"), re.compile(rf".*# wing: {wing}\n")
    for path in [tree / "README.md", *(tree / "docs").glob("*.md")]:
        path.write_text(block.sub("", row.sub("", path.read_text())))
    for name in ("pyproject.toml", "Makefile", "constraints.txt"):
        path = tree / name
        path.write_text(line.sub("", path.read_text()))


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


def check(tree: Path, *, whole: bool) -> None:
    """Linter, types and tests of a tree: all quick tests, or all collected and the guards run."""
    python = sys.executable
    run(tree, "lint", python, "-m", "ruff", "check", ".")
    run(tree, "types", python, "-m", "mypy")
    pytest = (python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--disable-warnings", "-m", QUICK)
    if whole:
        run(tree, "quick tests", *pytest, "-n", "2", "--dist", "worksteal")
    else:
        run(tree, "guards", *pytest, "-k", GUARDS)


def main(chosen: list[str]) -> None:
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "project"  # always the same place: mypy's cache serves all
        if (ROOT / CACHE).is_dir():
            shutil.copytree(ROOT / CACHE, tree / CACHE)

        def copy() -> None:
            for name in filter(None, files.split("\0")):
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, tree / name)

        for wing in chosen or WINGS:
            copy()
            print(f"without {wing}", flush=True)
            delete(tree, wing)
            check(tree, whole=False)
        if not chosen:
            copy()
            print("without any wing", flush=True)
            for wing in WINGS:
                delete(tree, wing)
            check(tree, whole=True)


if __name__ == "__main__":
    main(sys.argv[1:])
