"""float16 for adversaries: one loss scale each, and penalties that keep float32's range.

bf16 needs none of this: its range is float32's, and a penalty on the loss's own pass is as good there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.amp import GradScaler


class ScaledTurns(MixedPrecision):
    """float16 autocast with a `GradScaler` for each adversary (Micikevicius et al. 2018, section 3.2).

    With Lightning's single scaler an overflow in the discriminator's turn halves the scale of the
    generator's too. Here a turn that overflows skips its own step and halves its own scale. The
    scalers, and how many steps they skipped, are in the checkpoint.

    Args:
        device: type of the device that computes, as in `torch.autocast`.
        options: of each `torch.amp.GradScaler`, e.g. `init_scale`.
    """

    def __init__(self, device: str, **options: Any) -> None:
        super().__init__("16-mixed", device, GradScaler(device, **options))
        self.scaler = None  # the base class would use it for all turns
        self.options = options
        self.scalers: dict[str, GradScaler] = {}
        self.skipped: dict[str, Tensor] = {}  # steps, still on their device

    def scaler_of(self, name: str) -> GradScaler:
        """The scaler of the adversary `name`, made when it is first asked for."""
        if name not in self.scalers:
            self.scalers[name] = GradScaler(self.device, **self.options)
            self.skipped[name] = torch.zeros((), device=self.device)
        return self.scalers[name]

    def pre_backward(self, tensor: Tensor, module: Any) -> Tensor:
        return super().pre_backward(self.scaler_of(module.turn_of).scale(tensor), module)

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Any, model: Any, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        """Steps unless a gradient overflowed; hooks see gradients without their scale."""
        scaler = self.scaler_of(model.turn_of)
        closure()
        scaler.unscale_(optimizer)  # fused optimizers too, or their gradients would be clipped scaled
        self._after_closure(model, optimizer)
        overflowed = sum(scaler._found_inf_per_device(optimizer).values())
        result = scaler.step(optimizer, **kwargs)
        self.skipped[model.turn_of] += overflowed
        scaler.update()
        return result

    def scales(self) -> dict[str, float]:
        """Each adversary's loss scale and skipped steps, to be logged; waits for the device."""
        values = {f"scaler/{name}": scaler.get_scale() for name, scaler in self.scalers.items()}
        return values | {f"scaler/skipped_{name}": count.item() for name, count in self.skipped.items()}

    def state_dict(self) -> dict[str, Any]:
        return {
            name: {"scaler": scaler.state_dict(), "skipped": self.skipped[name].item()}
            for name, scaler in self.scalers.items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, state in state_dict.items():
            self.scaler_of(name).load_state_dict(state["scaler"])
            self.skipped[name].fill_(state["skipped"])


def scale_each_adversary(trainer: Trainer, shared: bool = False) -> None:
    """Gives a Trainer with precision 16-mixed the plugin above instead of Lightning's own.

    Raises:
        ValueError: if the adversaries share a backward pass, which has one scale.
    """
    plugin = trainer.precision_plugin
    if type(plugin) is MixedPrecision and plugin.precision == "16-mixed":
        if shared:
            raise ValueError(
                "update is one_stage, whose backward pass cannot carry the loss scales of both adversaries: "
                "give --trainer.precision bf16-mixed or 32-true, or update alternating."
            )
        trainer.strategy.precision_plugin = ScaledTurns(plugin.device)


def scales(trainer: Trainer) -> dict[str, float]:
    """Loss scales and skipped steps to log; none in other precisions."""
    plugin = trainer.precision_plugin
    return plugin.scales() if isinstance(plugin, ScaledTurns) else {}


@contextmanager
def in_full_range(device: torch.device) -> Iterator[bool]:
    """Leaves autocast where it computes in float16, and says so; does nothing elsewhere.

    float16 ends at 65504 and loses what is below 6e-8, and a gradient penalty squares gradients.
    """
    narrow = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16
    if narrow:
        with torch.autocast(device.type, enabled=False):
            yield True
    else:
        yield False
