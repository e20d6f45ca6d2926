"""torch.compile for the networks; passes that are differentiated twice run uncompiled (`GAN.eager`)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import nn

from litgan.rebuild import first_line


def compile_networks(*networks: nn.Module, mode: bool | str, backend: str = "inductor") -> None:
    """Compiles each network's forward pass on its device; names of weights do not change.

    `mode` and `backend` are those of `torch.compile`; True is its default mode. Without a compiler on this
    machine the networks stay uncompiled, with a warning. Raises ValueError if there is no such mode.
    """
    modes = torch._inductor.list_mode_options()
    if mode is not True and mode not in modes:
        raise ValueError(
            f"compile is {mode!r}: give true, false or a mode of torch.compile, {', '.join(modes)}."
        )
    device = next(networks[0].parameters()).device
    try:
        torch.compile(torch.sin, backend=backend)(torch.zeros(2, device=device))
    except Exception as error:  # the kind depends on what is missing
        warnings.warn(
            f"model.compile is on, but nothing can be compiled here ({first_line(error)}): "
            "training goes on uncompiled; install a C++ compiler (on CUDA: Triton) to change that.",
            stacklevel=2,
        )
        return
    options: dict[str, Any] = {} if mode is True else {"mode": mode}
    for network in networks:
        network._compiled_call_impl = torch.compile(  # as nn.Module.compile does
            _own_call(network), dynamic=False, backend=backend, **options
        )


def _own_call(network: nn.Module) -> Callable[..., Any]:
    """The network's call as new code: torch keeps at most 8 graphs per code object, over all networks."""

    def call(*arguments: Any, **options: Any) -> Any:
        return network._call_impl(*arguments, **options)

    return FunctionType(call.__code__.replace(), globals(), closure=call.__closure__)


def uncompile_networks(*networks: nn.Module) -> None:
    """Undoes `compile_networks`."""
    for network in networks:
        network._compiled_call_impl = None
