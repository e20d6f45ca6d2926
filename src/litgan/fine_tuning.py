"""Fine-tuning: weights from another run's checkpoint, frozen parts, and the check that data are the same."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from litgan import checkpoints
from litgan.files import warn
from litgan.rebuild import SHORT

AVERAGES = re.compile(r"(generator|ema\.average|extra_emas\.\w+\.average)\.")  # all of the generator's shape
NO_NETWORKS = ("ema", "extra_emas", "augment", "loss", "stateful_penalties")  # modules of a GAN
TOLERANCE = 1e-3  # of samples, relative: processors and versions of libraries round differently


def take_weights(gan: nn.Module, path: str | Path) -> None:
    """Copies from a checkpoint the weights of the networks that fit by name and shape, and says which do not.

    The generator and all its averages get the averaged weights. Of the file, which may come from a stranger,
    only tensors are used: its classes, data and condition may be others.

    Raises:
        FileNotFoundError, ValueError: one sentence, if the file cannot be read or no parameter fits.
    """
    saved, own = checkpoints.read(path)["state_dict"], gan.state_dict()
    sources = {name: AVERAGES.sub("ema.average.", name, count=1) for name in own}
    fitting = {
        name: saved[source]
        for name, source in sources.items()
        if (AVERAGES.match(name) or is_of_network(name)) and checkpoints.fits(saved.get(source), own[name])
    }
    networks = [name for name in own if is_of_network(name)]
    new = [name for name in networks if name not in fitting]
    parameters = dict(gan.named_parameters())
    if not any(name in parameters and own[name].ndim > 1 for name in fitting):  # one bias is no start
        raise ValueError(
            f"The checkpoint {path} has no weight matrix of a name and shape as in these networks: give "
            "--init_from one of similar networks, or leave it out."
        )
    checkpoints.check_values(fitting, gan)
    gan.load_state_dict(own | fitting)
    others = f"; new are {shorten(new)}" if new else ""
    warn(f"{len(networks) - len(new)} of {len(networks)} tensors of the networks are from {path}{others}.")


def is_of_network(name: str) -> bool:
    """Whether a weight or module of a GAN belongs to a network that is trained."""
    return name.split(".")[0] not in ("", *NO_NETWORKS)


def shorten(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class Freeze(Callback):
    """Parts of the networks are not trained: no gradient, no state of the optimizer, evaluation mode.

    Gradients still pass through them. In evaluation mode running statistics stay what they are.

    Args:
        names: of modules or parameters of a GAN, such as discriminator.stages.0.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self.modules: list[nn.Module] = []

    def setup(self, trainer: Trainer, gan: LightningModule, stage: str) -> None:
        """Freezes before optimizers and reducers are made.

        Raises:
            ValueError: one sentence, if there is no such part, or if a network has nothing left to train.
        """
        if stage != "fit" or not self.names:
            return
        parts = {**dict(gan.named_modules()), **dict(gan.named_parameters())}
        parts = {name: part for name, part in parts.items() if is_of_network(name)}
        for name in self.names:
            if name not in parts:
                near = get_close_matches(name, parts) or [name for name in parts if name.count(".") < 2]
                raise ValueError(f"model.freeze names {name}, which is no part: take {shorten(near)}.")
            parts[name].requires_grad_(False)
        self.modules = [part for name in self.names if isinstance(part := parts[name], nn.Module)]
        for name in ("generator", "discriminator"):
            if not any(weight.requires_grad for weight in parts[name].parameters()):
                raise ValueError(f"model.freeze leaves nothing of the {name} to train: name less of it.")

    def on_train_batch_start(self, *_: object) -> None:
        for module in self.modules:  # callbacks may have called train()
            module.eval()

    def state_dict(self) -> dict[str, Any]:
        return {"names": sorted(self.names)} if self.names else {}

    def on_load_checkpoint(self, trainer: Trainer, gan: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raises ValueError if the run had other parts frozen: its optimizers' states fit no others."""
        saved = checkpoint["callbacks"].get(self.state_key, {}).get("names", [])
        if trainer.training and saved != sorted(self.names):
            raise ValueError(
                f"The run froze {SHORT.repr(saved)} and model.freeze is {SHORT.repr(self.names)}: resume it "
                "with the same, or start a run from its weights with --init_from."
            )


class SameData(Callback):
    """A run is resumed with the data that it began with, wherever and however they are stored now.

    What is compared is the `signature` of the data module, if it has one; a checkpoint without goes on.
    """

    def __init__(self) -> None:
        self.signature: dict[str, Any] = {}

    def setup(self, trainer: Trainer, gan: LightningModule, stage: str) -> None:
        if stage == "fit":
            self.signature = getattr(trainer.datamodule, "signature", {})

    def state_dict(self) -> dict[str, Any]:
        return self.signature

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError, one sentence, if the checkpoint's data are others."""
        for name, value in self.signature.items():
            saved = state_dict.get(name)
            if not (near(saved, value) if name == "content" else saved == value):
                values = "" if name == "content" else f" {SHORT.repr(saved)}, here {SHORT.repr(value)}"
                raise ValueError(
                    f"The checkpoint's run had other data ({name.replace('_', ' ')}{values}): resume with "
                    "the same, or start a run from its weights with --init_from CHECKPOINT."
                )


def near(saved: Any, value: list[float]) -> bool:
    """Whether saved numbers, of any kind, are these but for rounding."""
    try:
        return math.dist(saved, value) <= TOLERANCE * math.hypot(*value)
    except (TypeError, ValueError, OverflowError):
        return False
