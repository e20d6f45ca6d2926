"""Objects from recipes: each hint takes what it says. Whole recipes are in shared/recipes.py."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from litgan.metrics import Embedded
from litgan.rebuild import Builder, check_plain
from litgan.schedules import Linear, Schedule


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
        ("number", {"class_path": "litgan.schedules.Schedule", "init_args": LINEAR["init_args"]}),
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


def test_what_is_imported_or_embedded_has_values_also_where_weights_are_to_have_none(tmp_path, monkeypatch):
    (tmp_path / "constants.py").write_text(
        "import torch\n\nTHREE = torch.tensor(3.0)\n\n\nclass Layer(torch.nn.Module):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with torch.device("meta"):
        Builder("constants").build_subclass(nn.Module, {"class_path": "constants.Layer"}, "model")
        embedded = {"class_path": f"{Embedded.__module__}.Embedded", "init_args": {"name": "digits"}}
        assert Builder().build_subclass(nn.Module, embedded, "model").digest == Embedded("digits").digest
    assert sys.modules["constants"].THREE == 3
