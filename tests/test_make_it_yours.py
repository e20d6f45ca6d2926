"""docs/make_it_yours.md is true: each of its blocks is run, in the order of the page, in an empty folder.

Once with the sources as an editable installation has them, once with what a plain installation has.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from shared import pages
from shared.pages import PACKAGE
from shared.repository import is_repository

ROOT = Path(__file__).parents[1]
BLOCKS = pages.blocks("make_it_yours.md")


@pytest.fixture(params=["editable", "plain"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Variables under which `litgan` and `python` use this package, installed in one of two ways."""
    source = ROOT / "src"
    if request.param == "plain":
        pytest.importorskip("hatchling")  # builds it without a download
        source, pip = tmp_path / "installed", [sys.executable, "-m", "pip", "install", "-q"]
        options = ["--no-deps", "--no-build-isolation", "--target", str(source)]
        subprocess.run([*pip, *options, str(ROOT)], check=True)
    return pages.environment(tmp_path / "bin", source)


@pytest.mark.spawn
def test_each_block_of_the_page_runs(environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    installed = environment["PYTHONPATH"] != str(ROOT / "src")
    said = ""
    for _, block in BLOCKS:
        if f"{PACKAGE} new" in block and (installed or not is_repository()):
            continue  # needs the repository: the sentence is tested with the command
        said += pages.run(block, folder, environment)
    made = (folder / "mygan/README.md").is_file()
    assert (
        made or installed or not any(f"{PACKAGE} new" in block for _, block in BLOCKS) or not is_repository()
    )
    before, after = re.search(r"L1 of the input ([\d.]+), of what was made ([\d.]+)", said).groups()  # type: ignore[union-attr]
    assert float(after) < 0.7 * float(before)
    assert "spread of the samples" in said and "torch.Size([4, 1, 8, 8])" in said
    first, second = sorted(folder.glob("runs/mine/*"))
    header = (second / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"metric/fd_moments", "penalty/drift", "loss/offset", "gradient/generator"} <= set(header)
    assert Image.open(next(first.glob("samples/*.png"))).size > (100, 100)
    assert (folder / "pictures/samples_seed0.png").is_file()
    assert list(folder.glob("wandb/offline-run-*/files/media/images/samples_*.png"))


@pytest.mark.spawn
def test_a_recipe_is_found_by_its_name_in_an_installation(
    environment: dict[str, str], tmp_path: Path
) -> None:
    if environment["PYTHONPATH"] != str(ROOT / "src"):
        shutil.rmtree(tmp_path / "installed" / "bin", ignore_errors=True)
    options = "--trainer.max_steps=1 --realism.every=0 --samples.every=0 --trainer.accelerator=cpu"
    pages.run(f"{PACKAGE} fit --config digits {options}", tmp_path, environment)
    assert list(tmp_path.glob("runs/digits/*/checkpoints/last.ckpt"))
