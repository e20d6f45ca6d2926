"""Every YAML of configs/ is parsed, built and run for two iterations, those made for GPUs for one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from litgan import cli
from litgan.loggers import read_metrics
from litgan.recipe import Recipe

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted((CONFIGS / "overlays").glob("*.yaml"))
OFFLINE = {
    "litgan.data.Digits",
    "litgan.data.Ring",
    "litgan.text.Grammar",
    "litgan.data.Grid",
    "litgan.music.Scales",
    "litgan.sound.Tones",
}  # a folder stands in for others
TWINS = {  # of the same sample_shape, and synthesised
    "litgan.music.Music": "litgan.music.Scales",
    "litgan.sound.Sound": "litgan.sound.Tones",
}
LARGE = ("cifar10_r3gan", "cifar10_stylegan2", "ffhq")  # for GPUs: two samples take up to 20 s
BRIEF = {
    "trainer.max_steps": 2, "trainer.log_every_n_steps": 1, "trainer.accelerator": "cpu",
    "trainer.devices": 1, "realism.every": 0, "samples.count": 4, "gradients.count": 4,
    "trainer.enable_progress_bar": "false", "trainer.precision": "32-true",
}  # fmt: skip


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 synthetic colour images, of ten classes where somebody asks for classes."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for index in range(12):
        file = folder / str(index % 10) / f"{index}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(file)
    return folder


def stand_in(recipe: dict, pictures: Path) -> list[str]:
    """Options that put the folder in the place of data that cannot be had offline."""
    if recipe["data"]["class_path"] in OFFLINE:
        return []
    if recipe["data"]["class_path"] == "litgan.text.Text":
        return ["--data.path", __file__]  # any text will do
    if recipe["data"]["class_path"] in TWINS:
        return ["--data", TWINS[recipe["data"]["class_path"]]]
    return ["--data", "litgan.data.ImageFolder", "--data.root", str(pictures)]


def brief(path: Path) -> dict[str, Any]:
    """Options for the shortest run that a recipe can have."""
    if path.stem.startswith(LARGE):
        return BRIEF | {"trainer.max_steps": 1, "samples.every": 0, "data.batch_size": 2}
    return BRIEF | {"data.batch_size": 8}


def run(files: list[Path], options: list[str], root: Path) -> list[dict[str, float]]:
    """Rows of metrics.csv."""
    shortest = [f"--{key}={value}" for key, value in brief(files[0]).items()]
    chosen = [part for file in files for part in ("--config", str(file))]
    cli.main(["fit", *chosen, *options, *shortest, f"--trainer.default_root_dir={root}"])
    (metrics,) = root.glob(f"{files[0].stem}/*/metrics.csv")
    return read_metrics(metrics)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * path.stem.startswith(LARGE)) for path in RECIPES],
    ids=lambda path: path.stem,
)
def test_recipe_runs(path: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    recipe = yaml.safe_load(path.read_text())
    rows = run([path], stand_in(recipe, pictures), tmp_path)
    images = brief(path)["data.batch_size"] * recipe["model"].get("discriminator_steps", 1)
    iterations = brief(path)["trainer.max_steps"]
    assert [row["images_seen"] for row in rows] == [images, 2 * images][:iterations]
    assert all({"loss/generator", "loss/discriminator", "gradient/feedback"} <= row.keys() for row in rows)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] if path.stem == "compile" else []) for path in OVERLAYS],
    ids=lambda path: path.stem,
)
def test_overlay_runs_over_digits(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    rows = run([CONFIGS / "digits.yaml", path], [], tmp_path)
    assert [row["images_seen"] for row in rows] == [8, 16]


def leaves(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    for key, value in tree.items():
        yield from leaves(value, f"{above}{key}.") if isinstance(value, dict) else [(above + key, value)]


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_is_short_and_changes_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = path.read_text()
    assert len([line for line in text.splitlines() if not line.startswith("#")]) < 10
    for stage in ("instantiate_classes", "after_instantiate_classes"):  # its machine may be another
        monkeypatch.setattr(Recipe, stage, lambda self: None)
    files = ["--config", str(CONFIGS / "digits.yaml"), "--config", str(path)]
    config = Recipe([*files, f"--trainer.default_root_dir={tmp_path}"], "validate").config
    for key, value in leaves(yaml.safe_load(text)):
        if key.startswith("model.") and not key.startswith(("model.class_path", "model.init_args")):
            key = key.replace("model.", "model.init_args.", 1)  # keys of litgan.GAN
        assert config[key] == value, key


@pytest.mark.parametrize("path", [*RECIPES, *OVERLAYS], ids=lambda path: path.stem)
def test_the_first_line_is_the_command(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert re.match(r"# (srun )?litgan fit --config configs/", first)
    assert str(path.relative_to(CONFIGS.parent)) in first.split()
