"""What a resumed run takes from its checkpoint, which may be a stranger's: checked before it is used."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from reprlib import repr as short
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

NEEDED = ("callbacks", "loops", "optimizer_states", "lr_schedulers", "epoch", "global_step")


def check_training_state(checkpoint: dict[str, Any], trainer: Trainer | None) -> None:
    """Raises ValueError if a Trainer cannot resume a fit from a checkpoint, such as one of weights alone."""
    if trainer is None or not trainer.training:
        return
    faults = [name for name in NEEDED if name not in checkpoint]
    if not faults and not alike(checkpoint["loops"].get("fit_loop"), trainer.fit_loop.state_dict()):
        faults = ["loops"]
    if faults:
        raise ValueError(
            f"The checkpoint holds no {faults[0]} from which training can go on: resume from another one of "
            "the run, or start a run from its weights with --init_from."
        )


def alike(saved: Any, template: Any) -> bool:
    """Whether saved plain data has all keys of the template, and there values of the same types."""
    if isinstance(template, dict):
        return isinstance(saved, dict) and all(
            key in saved and alike(saved[key], value) for key, value in template.items()
        )
    return type(saved) is type(template)


@contextmanager
def restoring(name: str) -> Iterator[None]:
    """Turns errors in this block, that a damaged state explains, into a ValueError with one sentence."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"The checkpoint's state of {name} is not as litgan writes it ({type(error).__name__}): take "
            "another checkpoint of the run."
        ) from error


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

        Raises ValueError: one sentence, if the run had other optimizers, or others parameters or state.
        """
        restored, self.restored = self.restored, {}
        self.classes = [type(optimizer).__name__ for optimizer in trainer.optimizers]
        for group in (group for optimizer in trainer.optimizers for group in optimizer.param_groups):
            group["initial_lr"] = group["lr"]
        if not restored:
            return
        states = restored["optimizer_states"]
        classes = restored["callbacks"].get(self.state_key, {}).get("classes", self.classes)
        own = [optimizer.state_dict() for optimizer in trainer.optimizers]
        if classes != self.classes or [parameters(one) for one in states] != [parameters(one) for one in own]:
            raise ValueError(
                f"The checkpoint's state is of the optimizers {short(classes)} and does not fit those of the "
                f"recipe, {short(self.classes)}: resume with the same, or start a run from its weights with "
                "--init_from."
            )
        for optimizer, saved in zip(trainer.optimizers, states, strict=True):
            for group, old in zip(optimizer.param_groups, saved["param_groups"], strict=True):
                for index, weight in zip(old["params"], group["params"], strict=True):
                    check_state(
                        type(optimizer), weight, options(optimizer, group), saved["state"].get(index, {})
                    )
                old.update({**options(optimizer, group, all_of_torch=True), "initial_lr": group["lr"]})


def parameters(state: Any) -> list[list[int]] | None:
    """The numbers of the parameters in each group of an optimizer; None if this is no state of one."""
    groups = state.get("param_groups") if isinstance(state, dict) else None
    if not isinstance(groups, list) or not isinstance(state.get("state"), dict):
        return None
    found: list[Any] = [group.get("params") if isinstance(group, dict) else None for group in groups]
    if not all(isinstance(one, list) and all(type(number) is int for number in one) for one in found):
        return None
    return found if state["state"].keys() <= {number for one in found for number in one} else None


def is_of_torch(cls: type) -> bool:
    return cls.__module__.startswith("torch.optim.")


def options(optimizer: Optimizer, group: dict[str, Any], all_of_torch: bool = False) -> dict[str, Any]:
    """What the optimizer's constructor takes, of a group of parameters; others keep their state there too."""
    known = (
        group
        if all_of_torch and is_of_torch(type(optimizer))
        else inspect.signature(type(optimizer)).parameters
    )
    return {key: value for key, value in group.items() if key in known and key != "params"}


def check_state(cls: type[Optimizer], weight: nn.Parameter, options: dict[str, Any], saved: Any) -> None:
    """Compares what an optimizer of torch is to know about a weight with what it keeps after a step.

    Fused optimizers write beyond the memory of tensors that are too small.

    Raises ValueError: one sentence with the entry that is missing or of another shape.
    """
    if isinstance(saved, dict) and not saved:  # it has made no step
        return
    expected: dict[str, Any] = {}
    if is_of_torch(cls):
        probe = torch.zeros_like(weight).requires_grad_()
        probe.grad = torch.zeros_like(weight)
        optimizer: Any = cls([probe], **options)
        optimizer.step()
        expected = optimizer.state[probe]
    if not isinstance(saved, dict):
        expected, saved = {"state": None}, {}
    for name, value in expected.items():
        if name not in saved or _kind(saved[name]) != _kind(value):
            raise ValueError(
                f"The checkpoint's state of {cls.__name__} has no {name} as the recipe's options need it: "
                "resume with those of the run, or start one from its weights with --init_from."
            )
    for name in [name for name in saved if expected and name not in expected]:
        del saved[name]


def _kind(value: Any) -> Any:
    if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized:
        return tuple(value.shape)
    return () if type(value) in (int, float) else type(value)
