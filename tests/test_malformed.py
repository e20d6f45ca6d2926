"""A checkpoint with anything in any of its entries is read and resumed, or refused in one sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from litgan import GAN, checkpoints, commands
from litgan.callbacks import Checkpoint, Feedback
from litgan.data import GANDataModule, Ring
from litgan.rebuild import Builder, find_sentence

NETWORKS = "litgan.networks."
MODEL = {
    "class_path": "litgan.GAN",
    "init_args": {
        "generator": {"class_path": NETWORKS + "MLPGenerator", "init_args": {"latent_dim": 3, "widths": [8]}},
        "discriminator": {"class_path": NETWORKS + "MLPDiscriminator", "init_args": {"widths": [8]}},
        "loss": {"class_path": "litgan.losses.NonSaturating"},
        "generator_optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01, "fused": True}},
        "discriminator_optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01}},
        "sample_shape": [2],
    },
}
DATA = {"class_path": "litgan.data.Ring", "init_args": {"samples": 40, "batch_size": 8}}
RECIPE = {"name": "ring", "run_id": "r", "model": MODEL, "data": DATA, "realism": {"extractor": "digits"}}


def nested(depth: int) -> list[Any]:
    node: list[Any] = []
    for _ in range(depth):
        node = [node]
    return node


def circle() -> dict[str, Any]:
    node: dict[str, Any] = {}
    node["a"] = node
    return node


VALUES: dict[str, Any] = {
    "None": None, "list": [], "mapping": {}, "text": "x", "number": 3, "negative": -1, "large": 10**30,
    "NaN": float("nan"), "tensor": torch.ones(2), "scalar": torch.tensor(1), "list of mappings": [{}],
    "mapping of lists": {"a": []}, "deep": nested(300), "circle": circle(), "numbers": {1: 2},
    "a state": {"state": {}, "param_groups": []},
}  # fmt: skip


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each entry; of long groups to the first two."""
    children = (
        list(node.items())
        if isinstance(node, dict)
        else list(enumerate(node))
        if isinstance(node, list)
        else []
    )
    for key, child in children if len(children) < 12 else children[:2]:
        yield (*above, key)
        yield from places(child, (*above, key))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("good")
    run = trainer(2, folder)
    run.fit(fresh(), datamodule=Ring(samples=40, batch_size=8))
    run.save_checkpoint(folder / "good.ckpt", weights_only=False)
    return torch.load(folder / "good.ckpt", weights_only=True)


def trainer(iterations: int, folder: Path) -> Trainer:
    return Trainer(
        max_steps=iterations, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, plugins=[checkpoints.AtomicCheckpointIO()],
        callbacks=[Feedback(every=0), Checkpoint(every=0, minutes=0, folder=str(folder / "none"))],
    )  # fmt: skip


def fresh() -> GAN:
    gan = checkpoints.build_gan({"litgan": {"recipe": {"model": MODEL}}}, GAN)
    gan.recipe = RECIPE
    return gan


def actions(path: Path) -> dict[str, Callable[[], object]]:
    return {
        "load": lambda: GAN.load_from_checkpoint(path),
        "data": lambda: checkpoints.build_data(checkpoints.read(path), GANDataModule),
        "extractor": lambda: commands.build_extractor(checkpoints.read(path), Builder()),
        "fit": lambda: trainer(3, path.parent).fit(
            fresh(), datamodule=Ring(samples=40, batch_size=8), ckpt_path=path
        ),
    }


def assert_read_or_refused(checkpoint: Any, where: object, path: Path) -> set[str]:
    """Tries everything; returns the names of what was refused."""
    torch.save(checkpoint, path)
    refused = set()
    for name, action in actions(path).items():
        try:
            action()
        except Exception as error:
            if "\n" in str(find_sentence(error) or "\n"):
                pytest.fail(f"{where}, {name}: {error!r}")
            refused.add(name)
    return refused


def entries(checkpoint: dict[str, Any]) -> list[tuple[Any, ...]]:
    found = [place for place in places(checkpoint) if place[:2] != ("litgan", "recipe") or len(place) < 4]
    assert len(found) > 80
    return found


def changed(checkpoint: dict[str, Any], place: tuple[Any, ...], value: str) -> dict[str, Any]:
    """A copy with another value in one place, or none."""
    checkpoint = copy.deepcopy(checkpoint)
    node: Any = checkpoint
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = VALUES.get(value)
    if value == "absent":
        del node[place[-1]]
    return checkpoint


@pytest.mark.heavy
@pytest.mark.parametrize("value", ["absent", *VALUES])
def test_anything_in_any_entry(value: str, good: dict[str, Any], tmp_path: Path) -> None:
    refused = [
        assert_read_or_refused(changed(good, place, value), place, tmp_path / "x.ckpt")
        for place in entries(good)
    ]
    assert sum(map(bool, refused)) > 20


@pytest.mark.heavy
def test_something_else_in_any_entry(good: dict[str, Any], tmp_path: Path) -> None:
    for place, value in zip(entries(good), cycle(["absent", *VALUES])):
        assert_read_or_refused(changed(good, place, value), (place, value), tmp_path / "x.ckpt")


def test_a_good_one_passes_everything(good: dict[str, Any], tmp_path: Path) -> None:
    assert not assert_read_or_refused(copy.deepcopy(good), "", tmp_path / "x.ckpt")


@pytest.mark.parametrize("shape", [(), (0,), (1,), (8, 4), (10**3, 3)])
def test_an_optimizer_gets_no_state_of_another_shape(
    shape: tuple[int, ...], good: dict[str, Any], tmp_path: Path
) -> None:
    """A fused optimizer would write beyond the end of a smaller tensor."""
    checkpoint = copy.deepcopy(good)
    checkpoint["optimizer_states"][0]["state"][0]["exp_avg"] = torch.zeros(shape)
    assert assert_read_or_refused(checkpoint, shape, tmp_path / "x.ckpt") == {"fit"}
