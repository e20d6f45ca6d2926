"""torch.compile for the two turns: the networks and their losses in one graph each.

What has a second derivative runs as it is written, since compiled functions have none (`uncompiled`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo.exc import TorchDynamoException

if TYPE_CHECKING:
    from litgan.adversaries import Adversaries

UNITS = ("imagine", "tell_apart", "fool")  # methods of GAN that take and give tensors only


class Unit:
    """A method of a GAN, compiled whole: a graph for each kind of call, without breaks.

    It runs as it is written while somebody listens to a network (forward hooks see tensors, of which a graph
    has none) and, after one sentence, where it cannot be compiled. A copy of the GAN has units of its own,
    which compile anew.

    Args:
        gan: on its device.
        name: of the method.
        options: of `torch.compile`.
    """

    def __init__(self, gan: Adversaries, name: str, **options: Any) -> None:
        self.gan, self.name, self.options = gan, name, options
        self.compiled: Any = None

    def __call__(self, *arguments: torch.Tensor | None) -> Any:
        function: FunctionType = getattr(type(self.gan), self.name)
        written = MethodType(function, self.gan)
        if self.gan.generator._forward_hooks or self.gan.discriminator._forward_hooks:
            return written(*arguments)
        if self.compiled is None:
            self.compiled = torch.compile(MethodType(_twin(function), self.gan), **self.options)
        try:
            return self.compiled(*arguments)
        except TorchDynamoException as error:
            _say_so(f"GAN.{self.name} cannot be compiled with these networks", error, "leave compile out")
            self.compiled = written
            return written(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"compiled": None}


def compile_turns(gan: Adversaries, mode: bool | str, backend: str = "inductor") -> None:
    """Compiles what the turns compute, as functions of tensors; weights and their names stay as they are.

    Falls back to the uncompiled ones, with one sentence, where there is no compiler.

    Args:
        gan: on its device.
        mode: of `torch.compile`, e.g. "reduce-overhead" for CUDA graphs; True for its default.
        backend: of `torch.compile`.

    Raises:
        ValueError: if there is no such mode.
    """
    modes = torch._inductor.list_mode_options()
    if mode is not True and mode not in modes:
        raise ValueError(
            f"compile is {mode!r}: give true, false or a mode of torch.compile, {', '.join(modes)}."
        )
    try:
        torch.compile(_probe, backend=backend)(torch.zeros(2, device=gan.device))
    except Exception as error:  # whatever the absent compiler of this device provokes
        remedy = "install a C++ compiler (on CUDA: Triton) to change that"
        _say_so("model.compile is on, but nothing can be compiled here", error, remedy)
        return
    options = {} if mode is True else {"mode": mode}
    for name in UNITS:
        setattr(gan, name, Unit(gan, name, fullgraph=True, dynamic=False, backend=backend, **options))


def restore(gan: Adversaries) -> None:
    """Takes compiled functions away."""
    for name in UNITS:
        vars(gan).pop(name, None)


@contextmanager
def uncompiled(needed: bool) -> Iterator[None]:
    """In here compiled functions run as they are written, if `needed`: they have no double backward."""
    if needed:
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def _probe(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.sin() + 1


def _twin(function: FunctionType) -> FunctionType:
    """A function of its own: torch keeps graphs beside the code, and refuses a ninth of whichever GAN."""
    code = function.__code__.replace()
    twin = FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _say_so(what: str, error: Exception, remedy: str) -> None:
    reason = str(error).strip().splitlines()[0].rstrip(".")
    warnings.warn(
        f"{what} ({type(error).__name__}: {reason}): training goes on uncompiled; {remedy}.", stacklevel=3
    )
