"""Fine-tuning: parts that are not trained, and the check that a resumed run has its own data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from difflib import get_close_matches
from reprlib import repr as short
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

NO_NETWORKS = ("ema", "extra_emas", "augment", "loss", "stateful_penalties")  # modules of a GAN
TOLERANCE = 1e-3  # of samples, relative: processors and versions of libraries round differently


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

        Raises ValueError: one sentence, if there is no such part, or if a network has nothing left to train.
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
                f"The run froze {short(saved)} and model.freeze is {short(self.names)}: resume it "
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
            self.signature = getattr(trainer.datamodule, "signature", {})  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        return self.signature

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises ValueError, one sentence, if the checkpoint's data are others."""
        for name, value in self.signature.items():
            saved = state_dict.get(name)
            if not (near(saved, value) if name == "content" else repr(saved) == repr(value)):
                values = "" if name == "content" else f" {short(saved)}, here {short(value)}"
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
