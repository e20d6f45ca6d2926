"""Checkpoints: written atomically, read without running code, enough by themselves to rebuild a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import nn

from litgan.files import whole
from litgan.rebuild import LARGEST, STRICT, Builder, check_plain

if TYPE_CHECKING:
    from litgan.data import GANDataModule
    from litgan.gan import GAN
    from litgan.metrics import FeatureExtractor


class AtomicCheckpointIO(TorchCheckpointIO):
    """A checkpoint is there whole or not at all: temporary name, fsync, rename. Loads weights only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Writes a hidden file beside `path` and renames it.

        Raises:
            OSError: one sentence, if the disk is full or refuses; what `path` held before is untouched.
        """
        path = Path(path)
        try:
            with whole(path) as partial, partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):  # torch reports the disk's error as a RuntimeError of its own
                raise
            raise OSError(
                f"The checkpoint {path} cannot be saved ({cause.strerror or cause}): make room there; what "
                "was saved before is intact."
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return read(path, map_location)


def read(path: str | Path, map_location: Any = None) -> dict[str, Any]:
    """The content of a checkpoint, unpickled as plain data and tensors only.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is truncated, hostile, or not one of litgan's.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint at {path}: give the path of a .ckpt file.")
    try:
        checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
    except Exception as error:  # whatever a broken or hostile file provokes
        raise ValueError(
            f"The checkpoint {path} cannot be read as plain weights ({type(error).__name__}): it is truncated"
            " or holds objects that would run code; take another checkpoint of the run."
        ) from error
    parts = ("litgan", "state_dict")
    if not isinstance(checkpoint, dict) or not all(isinstance(checkpoint.get(part), dict) for part in parts):
        raise ValueError(
            f"The checkpoint {path} was not written by litgan: give one from a run's checkpoints folder."
        )
    _check_entries(checkpoint, path)
    return checkpoint


def check_architecture(checkpoint: dict[str, Any], module: nn.Module) -> None:
    """Compares names and shapes of all weights.

    Raises:
        ValueError: one sentence that names the first weight that differs.
    """
    saved = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    for name in [*wanted, *saved]:
        if saved.get(name) != wanted.get(name):
            there, here = (shapes.get(name, "absent") for shapes in (saved, wanted))
            raise ValueError(
                f"The checkpoint is of another architecture: {name} is {there} in it and {here} in this "
                "recipe; resume with the recipe (config.yaml) of the checkpoint's own run."
            )


def clock(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """The images seen and the turns taken when it was saved.

    Raises:
        ValueError: if one of them is no whole number, or negative.
    """
    said = checkpoint["litgan"]
    for name in ("images_seen", "turns"):
        if not _is_count(said.get(name)):
            raise ValueError(
                f"The checkpoint's {name} is no whole number of at least 0: take another one of the run."
            )
    return said["images_seen"], said["turns"]


def build_gan(checkpoint: dict[str, Any], cls: type[GAN], builder: Builder = STRICT) -> GAN:
    """The GAN that the checkpoint's recipe describes, with fresh weights.

    Raises:
        ValueError: if the checkpoint carries no recipe, one that does not fit, or one that asks for classes
            that are not allowed.
    """
    return builder.build(cls, _recipe(checkpoint, "model"), "model")


def build_data(checkpoint: dict[str, Any], builder: Builder = STRICT) -> GANDataModule:
    """The data module that the checkpoint's recipe describes, with what it keeps there; reads no data."""
    from litgan.data import GANDataModule

    data = builder.build_subclass(GANDataModule, _recipe(checkpoint, "data"), "data")
    state = checkpoint.get(type(data).__qualname__, {})  # Lightning's key for `state_dict()`
    if not isinstance(state, dict):
        raise ValueError(f"The checkpoint holds no state of {type(data).__qualname__}: take another one.")
    data.load_state_dict(state)
    return data


def build_extractor(checkpoint: dict[str, Any], builder: Builder = STRICT) -> FeatureExtractor:
    """The feature extractor with which the checkpoint's run measured itself."""
    from litgan.metrics import FeatureExtractor, extractor

    chosen = _recipe(checkpoint, "realism").get("extractor")
    if isinstance(chosen, str):
        return extractor(chosen, download=builder.download)
    return builder.build_subclass(FeatureExtractor, chosen, "realism.extractor")


def _recipe(checkpoint: dict[str, Any], part: str) -> dict[str, Any]:
    recipe = checkpoint["litgan"].get("recipe") or {}
    check_plain(recipe)
    described = recipe.get(part) if isinstance(recipe, dict) else recipe
    if not described:
        raise ValueError(
            f"The checkpoint carries no recipe for its {part}, for its run was not started by `litgan fit`: "
            "pass the constructor's arguments to GAN.load_from_checkpoint."
        )
    if not isinstance(described, dict):
        raise ValueError(f"The checkpoint's recipe describes its {part} by no mapping: do not trust it.")
    return described


ENTRIES = {  # what Lightning and litgan read of a checkpoint
    "state_dict": dict, "litgan": dict, "callbacks": dict, "loops": dict, "optimizer_states": list,
    "lr_schedulers": list, "epoch": int, "global_step": int,
}  # fmt: skip


def _check_entries(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuses entries of another type than litgan writes."""
    wrong = [name for name, kind in ENTRIES.items() if not isinstance(checkpoint.get(name, kind()), kind)]
    said = checkpoint["litgan"]
    wrong += [name for name in ("images_seen", "turns") if not _is_count(said.get(name, 0))]
    wrong += [name for name in ("recipe", "told") if not isinstance(said.get(name, {}), dict)]
    items = {"callbacks": dict, "optimizer_states": dict, "state_dict": torch.Tensor, "told": float}
    for name in items.keys() - wrong:
        group = (said if name == "told" else checkpoint).get(name, [])
        members = group.values() if isinstance(group, dict) else group
        wrong += [name] * (not all(isinstance(member, items[name]) for member in members))
    if wrong:
        raise ValueError(
            f"The checkpoint {path} holds no {wrong[0]} as litgan writes it: take another one of the run."
        )
    check_plain(said.get("recipe"))


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < LARGEST
