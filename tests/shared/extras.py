"""litgan in a process in which some packages cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORTS = """
import importlib, pkgutil, litgan
for module in pkgutil.walk_packages(litgan.__path__, "litgan."):
    if module.name != "litgan.__main__":
        importlib.import_module(module.name)
"""
FIT = """
from litgan import cli
cli.main(["fit", "--config", sys.argv[1], "--trainer.default_root_dir", sys.argv[2], *sys.argv[3:]])
"""
QUICK = ("--trainer.max_steps=2", "--data.batch_size=8", "--realism.count=64", "--samples.count=4")


def without(packages: Sequence[str], script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a script there."""
    blocked = f"import sys; sys.modules |= dict.fromkeys({list(packages)!r})\n"
    command = [sys.executable, "-c", blocked + script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def check_the_extra_is_named(recipe: str, package: str, extra: str, folder: Path) -> None:
    """A recipe ends with one sentence where a package is missing."""
    done = without([package], FIT, recipe, folder, *QUICK)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    sentence = f"The package {package} is not installed: pip install litgan[{extra}] brings it."
    assert sentence in done.stderr.splitlines()[-1]
