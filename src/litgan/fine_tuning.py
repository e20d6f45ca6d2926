"""Fine-tuning: parts that are not trained; and resuming, with the run's own data and optimizers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from difflib import get_close_matches
from reprlib import repr as short
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

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
            if not (near(saved, value) if name == "content" else saved == value):
                values = "" if name == "content" else f" {short(saved)}, here {short(value)}"
                raise ValueError(
                    f"The checkpoint's run had other data ({name.replace('_', ' ')}{values}): resume with "
                    "the same, or start a run from its weights with --init_from CHECKPOINT."
                )


class RecipeOptimizers(Callback):
    """Optimizers have the options of the recipe, on resume too: only their state is the checkpoint's."""

    def __init__(self) -> None:
        self.classes: list[str] = []
        self.restored: dict[str, Any] = {}  # the checkpoint, until its optimizers are restored

    def state_dict(self) -> dict[str, Any]:
        return {"classes": self.classes}

    def on_load_checkpoint(self, trainer: Trainer, gan: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.restored = checkpoint if trainer.training else {}

    def on_fit_start(self, trainer: Trainer, gan: LightningModule) -> None:
        """Remembers each learning rate as `initial_lr`, and changes the options in the checkpoint.

        Raises:
            ValueError: one sentence, if the run had other optimizers, or others parameters.
        """
        restored, self.restored = self.restored, {}
        self.classes = [type(optimizer).__name__ for optimizer in trainer.optimizers]
        for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
            group["initial_lr"] = group["lr"]
        if not restored:
            return
        states = restored.get("optimizer_states", [])
        classes = restored["callbacks"].get(self.state_key, {}).get("classes", self.classes)
        if classes != self.classes or sizes(states) != sizes(
            [one.state_dict() for one in trainer.optimizers]
        ):
            raise ValueError(
                f"The checkpoint's state is of the optimizers {short(classes)} and does not fit those of the "
                f"recipe, {short(self.classes)}: resume with the same, or start a run from its weights with "
                "--init_from."
            )
        for optimizer, saved in zip(trainer.optimizers, states, strict=True):
            for group, old in zip(optimizer.param_groups, saved["param_groups"], strict=True):
                chosen = options(optimizer, group)
                state = saved["state"].get(old["params"][0], {})
                needed = state_keys(type(optimizer), group["params"][0], chosen)
                if state and (missing := needed - set(state)):
                    raise ValueError(
                        f"The checkpoint's state of {type(optimizer).__name__} has no {min(missing)}, which "
                        "the recipe's options need: resume with those of the run, or start one from its "
                        "weights with --init_from."
                    )
                old.update({**chosen, "initial_lr": group["lr"]})


def options(optimizer: Optimizer, group: dict[str, Any]) -> dict[str, Any]:
    """What the optimizer's constructor takes, of a group of parameters; some keep their state there too."""
    known = inspect.signature(type(optimizer)).parameters
    return {key: value for key, value in group.items() if key in known and key != "params"}


def state_keys(cls: type[Optimizer], weight: nn.Parameter, options: dict[str, Any]) -> set[str]:
    """What a step of an optimizer of torch keeps about a weight; of others none is known."""
    if not cls.__module__.startswith("torch.optim."):
        return set()
    probe = torch.zeros_like(weight).requires_grad_()
    probe.grad = torch.zeros_like(weight)
    optimizer: Any = cls([probe], **options)
    optimizer.step()
    return set(optimizer.state[probe])


def sizes(states: Sequence[Any]) -> list[list[int]] | None:
    """The number of parameters in each group of each optimizer; None if these are no states."""
    try:
        found = [[len(group["params"]) for group in state["param_groups"]] for state in states]
        return found if all(isinstance(state["state"], dict) for state in states) else None
    except (TypeError, KeyError):
        return None


def near(saved: Any, value: list[float]) -> bool:
    """Whether saved numbers, of any kind, are these but for rounding."""
    try:
        return math.dist(saved, value) <= TOLERANCE * math.hypot(*value)
    except (TypeError, ValueError, OverflowError):
        return False
