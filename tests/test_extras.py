"""A base install, without the packages of sound and music, plays with images; a medium names its extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKED = "import sys; sys.modules |= dict.fromkeys(('soundfile', 'music21', 'mido'))\n"
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


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED + script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "file"), [("digits", "reals.png"), ("tones", "reals.wav")])
def test_without_extras_images_and_toys_are_trained(recipe: str, file: str, tmp_path: Path) -> None:
    done = run(IMPORTS + FIT, f"configs/{recipe}.yaml", tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob(f"{recipe}/*/samples/{file}"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("drums_wavegan", "The package soundfile is not installed: pip install litgan[sound] brings it."),
        ("chorales_pianoroll", "The package music21 is not installed: pip install litgan[music] brings it."),
    ],
)
def test_a_medium_names_the_extra_that_is_missing(recipe: str, sentence: str, tmp_path: Path) -> None:
    done = run(FIT, f"configs/{recipe}.yaml", tmp_path, *QUICK)
    assert done.returncode != 0
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
