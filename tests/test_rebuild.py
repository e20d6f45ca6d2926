"""Objects from recipes: those of configs/ come back as they were built, and each hint takes what it says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from litgan import GAN, augment, checkpoints, data, losses, metrics, networks, penalties, schedules
from litgan.rebuild import Builder, check_plain, parameters
from litgan.recipe import Recipe
from litgan.schedules import Linear, Schedule

RECIPES = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
LARGE = ("cifar10", "ffhq")  # built without memory


def assert_same(one: Any, other: Any, place: str) -> None:
    """Compares types and values, attribute by attribute; of networks the names and shapes of the weights."""
    assert type(one) is type(other), place
    if isinstance(one, nn.Module):
        shapes = [{name: value.shape for name, value in part.state_dict().items()} for part in (one, other)]
        assert shapes[0] == shapes[1] and repr(one) == repr(other), place
    if isinstance(one, Tensor):
        assert one.shape == other.shape and one.dtype == other.dtype, place
    elif isinstance(one, dict):
        assert list(one) == list(other), place
        for key, value in one.items():
            assert_same(value, other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}.{index}")
    elif type(one).__module__.startswith("litgan."):
        for name, value in vars(one).items():
            if not name.startswith("_") and name != "optimizer_factories":
                assert_same(value, vars(other)[name], f"{place}.{name}")
    elif isinstance(one, int | float | str | None):
        assert one == other, place


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_comes_back_from_its_checkpoint(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    options = [f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    with torch.device("meta") if path.stem.startswith(LARGE) else nullcontext():
        before = Recipe(["--config", str(path), *options, "--trainer.precision=32-true"], "validate")
        checkpoint = {"litgan": {"recipe": before.model.recipe}}
        gan, module = checkpoints.build_gan(checkpoint, GAN), checkpoints.build_data(checkpoint)
    if hasattr(before.datamodule, "download"):
        assert before.datamodule.download and not module.download  # unless the user allows it
        module.download = True
    gan.recipe = before.model.recipe
    assert_same(before.datamodule, module, "data")
    assert_same(before.model, gan, "model")
    assert {"loss", "penalties", "generator_penalties", "lr_schedule", "seed"} <= vars(gan).keys()
    for name in ("ema", "augment"):
        assert_same(getattr(before.model, name), getattr(gan, name), name)
    for theirs, ours in zip(before.model.configure_optimizers(), gan.configure_optimizers(), strict=True):
        assert_same(theirs.defaults, ours.defaults, "optimizer")
        assert type(theirs) is type(ours)


class Weighed(Schedule):
    """Takes one of everything."""

    def __init__(
        self,
        whole: int = 1,
        number: float | Schedule = 1.0,
        mode: bool | Literal["auto"] | None = None,
        pair: tuple[float, str] = (1.0, ""),
        many: Sequence[Schedule] = (),
        limits: float | dict[str, float] | None = None,
        make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None,
        room: Path = Path(),
        anything: Any = None,
        unhinted=None,
    ) -> None:
        self.given = dict(locals())

    def __call__(self, images_seen: int) -> float:
        return 1.0


LINEAR = {"class_path": "litgan.schedules.Linear", "init_args": {"start": 0, "end": 1, "images": 9}}
BUILDER = Builder()


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("whole", 3, 3), ("number", 3, 3.0), ("mode", True, True), ("mode", "auto", "auto"),
        ("mode", None, None), ("pair", [1, "a"], (1.0, "a")), ("limits", 2, 2.0),
        ("limits", {"a": 1}, {"a": 1.0}), ("room", "a/b", Path("a/b")),
        ("anything", {"a": [1, {}]}, {"a": [1, {}]}), ("unhinted", [1], [1]),
    ],
    ids=str,
)  # fmt: skip
def test_plain_values_are_taken_as_the_hint_says(name: str, given: Any, wanted: Any) -> None:
    found = BUILDER.build(Weighed, {name: given}, "it").given[name]
    assert found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("whole", 1.0), ("whole", True), ("whole", "1"), ("number", "1"), ("number", True), ("mode", "other"),
        ("mode", 1), ("pair", [1]), ("pair", "ab"), ("pair", ["a", "b"]), ("many", LINEAR), ("many", ["x"]),
        ("limits", [1]), ("limits", {"a": "b"}), ("limits", LINEAR), ("make", "torch.optim.Adam"),
        ("make", LINEAR), ("room", 1), ("anything", LINEAR), ("unhinted", [{"a": LINEAR}]), ("number", []),
        ("number", {"class_path": "torch.optim.Adam"}), ("number", {"class_path": 1}), ("unknown", 1),
        ("number", {"class_path": "litgan.schedules.Linear", "init_args": "start: 0"}),
        ("number", {"class_path": "litgan.schedules.Linear", "init_args": {"start": 0}}),
        ("number", {"class_path": "litgan.schedules.Ramp", "init_args": LINEAR["init_args"]}),
        ("number", {**LINEAR, "dict_kwargs": {}}),
        ("make", {"class_path": "torch.optim.Adam", "init_args": {"params": []}}),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_hint_does_not_take_is_refused_by_its_key(name: str, given: Any) -> None:
    with pytest.raises(ValueError, match=rf"^The checkpoint's recipe .*\bit\b.*\b{name}\b.*\.$") as refused:
        BUILDER.build(Weighed, {name: given}, "it")
    assert "\n" not in str(refused.value)


def test_objects_and_factories_are_built() -> None:
    made = BUILDER.build(Weighed, {"number": LINEAR, "many": [LINEAR]}, "it").given
    assert isinstance(made["number"], Linear) and [type(one) for one in made["many"]] == [Linear]
    factory = {"class_path": "torch.optim.adam.Adam", "init_args": {"lr": 1, "betas": [0, 0.5]}}
    optimizer = BUILDER.build(Weighed, {"make": factory}, "it").given["make"]([nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, torch.optim.Adam)
    assert (optimizer.defaults["lr"], optimizer.defaults["betas"]) == (1.0, (0.0, 0.5))


@pytest.mark.parametrize(
    "recipe",
    [
        (1,), {1}, {1: 2}, {"a\n": 1}, {"a": b""}, [torch.ones(1)], [2**63], ["x" * 5000], [0] * 5000,
        [[0] * 2000] * 9,
    ],
    ids=lambda recipe: str(recipe)[:20],
)  # fmt: skip
def test_what_is_no_plain_data_of_a_recipes_size_is_refused(recipe: Any) -> None:
    with pytest.raises(ValueError, match=r"^The checkpoint's recipe .*: do not trust it\.$"):
        check_plain({"model": recipe})


def texts() -> Iterator[str]:
    """Where a class that a checkpoint may name takes a text of any kind, as class.parameter."""
    for room in (augment, data, losses, metrics, networks, penalties, schedules):
        for cls in vars(room).values():
            if inspect.isclass(cls) and cls.__module__.startswith("litgan."):
                hints = {name: str(one.hint) for name, one in parameters(cls).items()}
                yield from (f"{cls.__name__}.{name}" for name, hint in hints.items() if "str" in hint)


def test_each_text_that_a_class_takes_is_known() -> None:
    """A new one may be a path, a URL or a name of weights: test_untrusted.py says what becomes of these."""
    folders = ("MNIST", "FashionMNIST", "CIFAR10", "CelebA", "ImageFolder", "Music", "Sound")
    samples = {f"{name}.root" for name in folders} | {"FashionMNIST.installed", "Text.path"}
    weights = {"Inception.weights", "Clap.weights", "ProjectedDiscriminator.backbone"}
    words = {"CelebA.attribute", "Classifier.name", "DiffAugment.policy"}
    assert set(texts()) - {"Report.values", "Report.protocol", "Report.classes"} == samples | weights | words
