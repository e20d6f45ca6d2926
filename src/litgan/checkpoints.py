"""Checkpoints: written atomically, read without running code, enough by themselves to rebuild a run."""

from __future__ import annotations

import copy
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import nn

from litgan.files import whole

if TYPE_CHECKING:
    from litgan.data import GANDataModule
    from litgan.gan import GAN
    from litgan.metrics import FeatureExtractor


FORMAT = 2  # of what is saved: raised when names of weights or entries change


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
    if (found := checkpoint["litgan"].get("format", 1)) != FORMAT:
        raise ValueError(
            f"The checkpoint {path} has format {found} and this version of litgan reads {FORMAT}: use the "
            "version that wrote it, or train again."
        )
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


def build_gan(checkpoint: dict[str, Any], cls: type[GAN]) -> GAN:
    """The GAN that the checkpoint's recipe describes, with fresh weights.

    Raises:
        ValueError: if the checkpoint carries no recipe, or one that does not parse.
    """
    return _instantiate(cls, _recipe(checkpoint, "model"), subclass=True)


def build_data(checkpoint: dict[str, Any]) -> GANDataModule:
    """The data module that the checkpoint's recipe describes, with what it keeps there; reads no data."""
    from litgan.data import GANDataModule

    data = _instantiate(GANDataModule, _recipe(checkpoint, "data"), subclass=True)
    data.load_state_dict(checkpoint.get(type(data).__qualname__, {}))  # Lightning's key for `state_dict()`
    return data


def build_extractor(checkpoint: dict[str, Any]) -> FeatureExtractor:
    """The feature extractor with which the checkpoint's run measured itself."""
    from litgan.metrics import FeatureExtractor, extractor

    chosen = _recipe(checkpoint, "realism")["extractor"]
    return (
        extractor(chosen)
        if isinstance(chosen, str)
        else _instantiate(FeatureExtractor, chosen, subclass=True)
    )


def _recipe(checkpoint: dict[str, Any], part: str) -> dict[str, Any]:
    recipe = checkpoint["litgan"]["recipe"].get(part)
    if not recipe:
        raise ValueError(
            f"The checkpoint carries no recipe for its {part}, for its run was not started by `litgan fit`: "
            "pass the constructor's arguments to GAN.load_from_checkpoint."
        )
    _check_classes(recipe)
    return recipe


def _check_classes(node: Any) -> None:
    """Refuses a recipe that names a function, which would be called, where a class or a value belongs.

    To find out, packages that are installed here and named there are imported.
    """
    if isinstance(node, dict):
        if "class_path" in node:
            found = _named(str(node["class_path"]))
            if found is None:
                raise ValueError(
                    f"The checkpoint needs the class {node['class_path']}, which cannot be imported: "
                    "install the package that it was trained with."
                )
            if not isinstance(found, type):
                raise ValueError(
                    f"The checkpoint's recipe names {node['class_path']}, which is no class: do not trust it."
                )
        for value in node.values():
            _check_classes(value)
    elif isinstance(node, list):
        for value in node:
            _check_classes(value)
    elif isinstance(node, str) and callable(found := _named(node)) and not isinstance(found, type):
        raise ValueError(f"The checkpoint's recipe names {node}, which is no class: do not trust it.")


def _named(path: str) -> Any:
    """What a dotted path leads to, if to anything that is installed."""
    module, _, name = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")) or not module:
        return None
    try:
        return getattr(importlib.import_module(module), name, None)
    except ImportError:
        return None


def _instantiate(cls: type, config: dict[str, Any], subclass: bool = False) -> Any:
    from jsonargparse import ArgumentError, ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    if subclass:
        parser.add_subclass_arguments(cls, "it", required=True)
    else:
        parser.add_class_arguments(cls, "it")
    try:  # of a copy: the parser writes its own objects into what it reads
        parsed = parser.parse_object({"it": copy.deepcopy(config)})
        build = getattr(parser, "instantiate", None) or parser.instantiate_classes  # its name before 4.50
        return build(parsed).it
    except ArgumentError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The checkpoint's recipe does not fit this version of litgan: {reason}") from error
