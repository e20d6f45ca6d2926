"""Whether anybody listens to backward passes, which Lightning offers to every callback in every turn."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy

OFFERED = ("on_before_backward", "on_after_backward")


def backward_is_plain(trainer: Trainer) -> bool:
    """Whether Lightning would add nothing to a backward pass: no reducer, no loss scale, no hook.

    Then a turn may call autograd itself: offering the hooks, unheard, to eight callbacks twice an iteration
    takes a tenth of what litgan adds to the iteration of a small network. Asked once, when training starts:
    a callback that comes later does not hear them.
    """
    precision = trainer.precision_plugin
    unscaled = type(precision) is MixedPrecision and precision.scaler is None
    if type(trainer.strategy) is not SingleDeviceStrategy or not (type(precision) is Precision or unscaled):
        return False
    if _changed(trainer.lightning_module, LightningModule, ("backward", *OFFERED)):
        return False
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return not any(_changed(callback, Callback, OFFERED) for callback in callbacks)


def _changed(listener: Any, base: type, hooks: tuple[str, ...]) -> bool:
    """Whether `listener` has a hook of its own: in its class or, as a LambdaCallback, in itself."""
    own = [getattr(getattr(listener, name), "__func__", None) for name in hooks]
    return own != [getattr(base, name) for name in hooks]
