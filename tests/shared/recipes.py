"""What recipes and overlays owe: they run, come back from a checkpoint, and say how to start them.

A test file subclasses `Recipes` and `Overlays` and says which folder of configs/ it is about.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from pydoc import locate
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch
import yaml
from shared import commands
from torch import Tensor, nn

from litgan import GAN, checkpoints, cli
from litgan.data import GANDataModule
from litgan.loggers import read_metrics
from litgan.rebuild import parameters
from litgan.recipe import Recipe

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
HEAVY = pytest.mark.heavy
LARGE = (
    "cifar10",
    "ffhq",
    "facades",
    "horse2zebra",
    "imagenet",
    "ljspeech",
    "drums_stereo",
)  # for GPUs: built without memory, and not run
PICTURES = "PICTURES"  # in stand-ins: a folder of images
BRIEF = {
    "trainer.max_steps": 2, "trainer.log_every_n_steps": 1, "trainer.accelerator": "cpu",
    "trainer.devices": 1, "realism.every": 0, "samples.count": 4, "gradients.count": 4,
    "trainer.enable_progress_bar": "false", "trainer.precision": "32-true", "data.batch_size": 8,
}  # fmt: skip


def run(files: list[Path], options: list[str], root: Path) -> list[dict[str, float]]:
    """Trains for two iterations; the rows of metrics.csv."""
    shortest = [f"--{key}={value}" for key, value in BRIEF.items()]
    chosen = [part for file in files for part in ("--config", str(file))]
    cli.main(["fit", *chosen, *options, *shortest, f"--trainer.default_root_dir={root}"])
    (metrics,) = root.glob(f"{files[0].stem}/*/metrics.csv")
    return read_metrics(metrics)


def leaves(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values."""
    for key, value in tree.items():
        yield from leaves(value, f"{above}{key}.") if isinstance(value, dict) else [(above + key, value)]


def assert_same(one: Any, other: Any, place: str, above: tuple[Any, ...] = ()) -> None:
    """Compares types and values, attribute by attribute; of networks the names and shapes of the weights."""
    assert type(one) is type(other), place
    if any(one is each for each in above):  # a term that knows its GAN
        return
    above = (*above, one)
    if isinstance(one, nn.Module):
        shapes = [{name: value.shape for name, value in part.state_dict().items()} for part in (one, other)]
        assert shapes[0] == shapes[1] and repr(one) == repr(other), place
    if isinstance(one, Tensor):
        assert one.shape == other.shape and one.dtype == other.dtype, place
    elif isinstance(one, dict):
        assert list(one) == list(other), place
        for key, value in one.items():
            assert_same(value, other[key], f"{place}.{key}", above)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}.{index}", above)
    elif type(one).__module__.startswith("litgan."):
        for name, value in vars(one).items():
            if not name.startswith("_") and name != "optimizer_factories":
                assert_same(value, vars(other)[name], f"{place}.{name}", above)
    elif isinstance(one, int | float | str | None):
        assert one == other, place


def adversary_in_second_iteration(model: dict[str, Any]) -> list[str]:
    """Options, if it comes late."""
    if "discriminator_start" not in model:
        return []
    place, weight = "--model.adversarial_weight", model["adversarial_weight"]
    while "begin" not in weight["init_args"]:
        place, weight = f"{place}.weight", weight["init_args"]["weight"]
    first = BRIEF["data.batch_size"]
    return [f"--model.discriminator_start={first}", f"{place}.begin={first - 1}", f"{place}.images=1"]


def data_sets(data: GANDataModule) -> Iterator[GANDataModule]:
    """The data set and those that it has inside."""
    yield data
    for value in vars(data).values():
        if isinstance(value, GANDataModule):
            yield from data_sets(value)


def texts(room: ModuleType) -> Iterator[str]:
    """Where a class that a checkpoint may name takes a text of any kind, as class.parameter."""
    for cls in vars(room).values():
        if inspect.isclass(cls) and cls.__module__.startswith(room.__name__):
            hints = {name: str(one.hint) for name, one in parameters(cls).items()}
            yield from (f"{cls.__name__}.{name}" for name, hint in hints.items() if "str" in hint)


def check_first_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    first = path.read_text().splitlines()[0]
    assert re.match(r"# (srun )?litgan fit --config configs/", first)
    assert str(path.relative_to(ROOT)) in first.split()
    commands.check(first[first.index("litgan") :], monkeypatch)


class OverRecipes:
    """Tests of each recipe in a folder of configs/, with stand-ins for data that cannot be had offline."""

    folder: ClassVar[str] = ""
    stand_ins: ClassVar[Mapping[str, list[str]]] = {  # of the classes of data
        **{f"litgan.data.{name}": [] for name in ("Digits", "Ring", "Grid")},
        "litgan.data.PairedFolder": [
            "--data", "litgan.data.Derived", "--data.data", "litgan.data.ImageFolder", "--data.data.root",
            PICTURES, "--data.data.resolution", "256", "--data.function", "litgan.data.Edges",
        ],
    }  # fmt: skip

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        recipes = sorted((CONFIGS / self.folder).glob("*.yaml"))
        small = [path for path in recipes if not path.stem.startswith(LARGE)]
        for name, cases in {"recipe": recipes, "small": small}.items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, cases, ids=lambda path: path.stem)

    def offline(self, data: dict[str, Any], pictures: Path, place: str = "--data") -> list[str]:
        """Options that put the stand-ins in the place of the data and of those that these have inside."""
        inner = {
            key: value for key, value in data.get("init_args", {}).items()
            if isinstance(value, dict) and issubclass(locate(value.get("class_path", "str")), GANDataModule)
        }  # fmt: skip
        if inner:
            options = (self.offline(value, pictures, f"{place}.{key}") for key, value in inner.items())
            whole = [f"{place}.disjoint=false"] * data["init_args"].get("disjoint", False)  # else too few
            whole += [f"{place}.samples=8"] * ("samples" in data["init_args"])
            return [option for each in options for option in each] + whole
        folder = ["--data", "litgan.data.ImageFolder", "--data.root", str(pictures)]
        gray = ["--data.channels=1", "--data.convert=true"] if "MNIST" in data["class_path"] else []
        found = self.stand_ins.get(data["class_path"], folder + gray)
        return [re.sub("^--data", place, option).replace(PICTURES, str(pictures)) for option in found]


class Recipes(OverRecipes):
    """Subclasses say which recipes; stand-ins of their data; their rooms."""

    rooms: ClassVar[tuple[ModuleType, ...]] = ()  # whose classes a checkpoint may name
    texts: ClassVar[set[str]] = set()  # as class.parameter, those that these classes take

    @pytest.fixture(autouse=True)
    def _without_wandb(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_MODE", "disabled")

    def test_it_runs(self, small: Path, pictures: Path, tmp_path: Path) -> None:
        recipe = yaml.safe_load(small.read_text())
        model = recipe["model"].get("init_args", recipe["model"])
        images = BRIEF["data.batch_size"] * model.get("discriminator_steps", 1)
        late = adversary_in_second_iteration(model)
        rows = run([small], [*self.offline(recipe["data"], pictures), *late], tmp_path)
        assert [row["images_seen"] for row in rows] == [images, 2 * images]
        wanted = {"loss/generator", "loss/discriminator", "gradient/feedback"}
        assert all(wanted <= row.keys() for row in rows[bool(late) :])

    @pytest.mark.heavy
    def test_it_comes_back_from_its_checkpoint(self, recipe: Path, tmp_path: Path) -> None:
        options = [
            f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu", "--trainer.devices=1",
            "--trainer.precision=32-true",
        ]  # fmt: skip
        with torch.device("meta") if recipe.stem.startswith(LARGE) else nullcontext():
            before = Recipe(["--config", str(recipe), *options], "validate")
            checkpoint = {"litgan": {"recipe": before.model.recipe}}
            gan = checkpoints.build_gan(checkpoint, GAN)
            module = checkpoints.build_data(checkpoint, GANDataModule)
        for theirs, ours in zip(data_sets(before.datamodule), data_sets(module), strict=True):
            if hasattr(theirs, "download"):
                assert theirs.download and not ours.download  # unless the user allows it
                ours.download = True
        gan.recipe = before.model.recipe
        assert_same(before.datamodule, module, "data")
        assert_same(before.model, gan, "model")
        assert {"loss", "penalties", "generator_penalties", "lr_schedule", "seed"} <= vars(gan).keys()
        for name in ("ema", "augment"):
            assert_same(getattr(before.model, name), getattr(gan, name), name)
        for theirs, ours in zip(before.model.configure_optimizers(), gan.configure_optimizers(), strict=True):
            assert_same(theirs.defaults, ours.defaults, "optimizer")
            assert type(theirs) is type(ours)

    def test_its_first_line_is_the_command(self, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        check_first_line(recipe, monkeypatch)

    def test_each_text_that_a_class_takes_is_known(self) -> None:
        """A new one may be a path, a URL or a name of weights: what becomes of it needs a test."""
        assert {text for room in self.rooms for text in texts(room)} == self.texts


class Overlays:
    """Subclasses say whose."""

    folder: ClassVar[str] = ""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        overlays = sorted((CONFIGS / self.folder / "overlays").glob("*.yaml"))
        if "overlay" in metafunc.fixturenames:
            cases = [pytest.param(path, marks=HEAVY if path.stem == "compile" else ()) for path in overlays]
            metafunc.parametrize("overlay", cases, ids=lambda path: path.stem)

    def test_it_runs_over_digits(
        self, overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WANDB_MODE", "disabled")
        rows = run([CONFIGS / "digits.yaml", overlay], [], tmp_path)
        assert [row["images_seen"] for row in rows] == [8, 16]

    def test_it_is_short_and_changes_what_it_says(
        self, overlay: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        text = overlay.read_text()
        assert len([line for line in text.splitlines() if not line.startswith("#")]) < 10
        for stage in ("instantiate_classes", "after_instantiate_classes"):  # its machine may be another
            monkeypatch.setattr(Recipe, stage, lambda self: None)
        files = ["--config", str(CONFIGS / "digits.yaml"), "--config", str(overlay)]
        config = Recipe([*files, f"--trainer.default_root_dir={tmp_path}"], "validate").config
        for key, value in leaves(yaml.safe_load(text)):
            if key.startswith("model.") and not key.startswith(("model.class_path", "model.init_args")):
                key = key.replace("model.", "model.init_args.", 1)  # keys of litgan.GAN
            assert config[key] == value, key

    def test_its_first_line_is_the_command(self, overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        check_first_line(overlay, monkeypatch)
