"""The fastest safe precision; float16 with one loss scale per network; float32 where nothing less will do."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.amp import GradScaler


class PerNetworkLossScale(MixedPrecision):
    """float16 autocast with a `GradScaler` for each network (Micikevicius et al. 2018, section 3.2).

    With Lightning's single scaler an overflow in the discriminator's step also halves the generator's scale.
    Here a step that overflows is skipped and halves its own network's scale. Scalers and numbers of skipped
    steps are in the checkpoint.

    Args:
        device: type of the device that computes, as in `torch.autocast`.
        options: of each `torch.amp.GradScaler`, e.g. `init_scale`.
    """

    def __init__(self, device: str, **options: Any) -> None:
        super().__init__("16-mixed", device, GradScaler(device, **options))
        self.scaler = None  # the base class would use it for all networks
        self.options = options
        self.scalers: dict[str, GradScaler] = {}
        self.skipped: dict[str, Tensor] = {}  # numbers of steps, on the device

    def scaler_of(self, name: str) -> GradScaler:
        """The scaler of the network `name`, made at its first use."""
        if name not in self.scalers:
            self.scalers[name] = GradScaler(self.device, **self.options)
            self.skipped[name] = torch.zeros((), device=self.device)
        return self.scalers[name]

    def pre_backward(self, tensor: Tensor, module: Any) -> Tensor:
        return super().pre_backward(self.scaler_of(module.updating).scale(tensor), module)

    def optimizer_step(  # type: ignore[override]
        self, optimizer: Any, model: Any, closure: Callable[[], Any], **kwargs: Any
    ) -> Any:
        """Steps unless a gradient overflowed; hooks see gradients without their scale."""
        scaler = self.scaler_of(model.updating)
        closure()
        scaler.unscale_(optimizer)  # fused optimizers too, or their gradients would be clipped scaled
        self._after_closure(model, optimizer)
        overflowed = sum(scaler._found_inf_per_device(optimizer).values())
        result = scaler.step(optimizer, **kwargs)
        self.skipped[model.updating] += overflowed
        scaler.update()
        return result

    def scales(self) -> dict[str, float]:
        """Each network's loss scale and skipped steps, to be logged; waits for the device."""
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


def per_network_loss_scale(trainer: Trainer) -> None:
    """Gives a Trainer with precision 16-mixed the plugin above instead of Lightning's own."""
    plugin = trainer.precision_plugin
    if type(plugin) is MixedPrecision and plugin.precision == "16-mixed":
        trainer.strategy.precision_plugin = PerNetworkLossScale(plugin.device)


def loss_scales(trainer: Trainer) -> dict[str, float]:
    """Loss scales and skipped steps to log; none in other precisions."""
    plugin = trainer.precision_plugin
    return plugin.scales() if isinstance(plugin, PerNetworkLossScale) else {}


def loss_scale(trainer: Trainer, name: str) -> float:
    """What float16 multiplies the loss of the network `name` by; 1 in other precisions."""
    plugin = trainer.precision_plugin
    return plugin.scaler_of(name).get_scale() if isinstance(plugin, PerNetworkLossScale) else 1.0


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """What is float32 is computed in float32 in here: without autocast, and without TF32's 10 bits."""
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution


CPUINFO = Path("/proc/cpuinfo")


def best_precision() -> str:
    """Lightning's name of the fastest precision that is safe for GANs on this machine.

    bf16 if the hardware multiplies in it faster (CUDA: compute capability 8.0 and up; CPU: AMX, or AMD's
    AVX512-BF16), otherwise float32. bf16 has float32's range and needs no loss scaling. Decided by the kind
    of processor and not by a measurement, because all ranks and a resumed run must decide alike.
    """
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "32-true"
    amx, avx512 = (
        getattr(torch.cpu, probe, lambda: False)()
        for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    # With AVX512-BF16 alone a discriminator took 0.58 times as long as in float32 on an AMD EPYC, but a step
    # 1.45 times as long on an Intel Xeon whose AMX was hidden from a virtual machine.
    return "bf16-mixed" if amx or (avx512 and cpu_vendor() == "AuthenticAMD") else "32-true"


def cpu_vendor() -> str:
    """The processor's vendor: "AuthenticAMD" or "GenuineIntel"; "" if unknown."""
    text = platform.processor()  # on Windows it ends with the vendor
    with suppress(OSError):
        text = CPUINFO.read_text()
    found = re.search(r"AuthenticAMD|GenuineIntel", text)
    return found.group() if found else ""
