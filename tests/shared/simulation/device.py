"""What runs on the simulated device, whose tensors have shapes and types, but no values."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import litgan

aten = torch.ops.aten
SOURCES = (str(Path(litgan.__file__).parent), str(Path(__file__).with_name("mistakes.py")))
COPIES = (aten._to_copy.default, aten.copy_.default)
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty"}


def place() -> str:
    """File and line of the project that asks for an operation; autograd's own have none."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(SOURCES):
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return "outside the project"


def launches(operation: Any) -> bool:
    """Whether it starts a kernel: views and allocations do not."""
    returned = [one.alias_info for one in operation._schema.returns]
    view = any(alias is not None and not alias.is_write for alias in returned)
    return not view and operation._schema.name.removeprefix("aten::") not in ALLOCATIONS


def as_ones(tensor: Tensor) -> Tensor:
    return torch.ones(tensor.shape, dtype=tensor.dtype)


class Device(TorchDispatchMode):
    """Runs for real what concerns only the CPU, the rest on FakeTensors. To the host these return as ones."""

    def __init__(self) -> None:
        super().__init__()
        self.iteration = -1  # the one that runs
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.operations: dict[int, Counter[str]] = defaultdict(Counter)  # that start kernels, by iteration
        self.mistakes: dict[int, Counter[str]] = defaultdict(Counter)

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        target = torch.device(kwargs.get("device") or ("cuda" if any(map(is_there, tensors)) else "cpu"))
        if not any(map(is_there, tensors)) and target.type == "cpu":
            return operation(*args, **kwargs)
        if operation.namespace == "prim":  # which device a tensor is on
            return self.pretend(operation, args, kwargs)
        if operation not in COPIES and any(one.ndim and not is_there(one) for one in tensors):
            self.mistake(f"{operation} gets a tensor of the CPU")
            args, kwargs = tree_map_only(Tensor, Tensor.cuda, (args, kwargs))
        if waits(operation, args, kwargs, target):
            self.mistake(f"{operation} waits for the device")
        if operation is aten._local_scalar_dense.default:
            return as_ones(args[0]).item()
        if operation is aten._to_copy.default and target.type == "cpu":
            return as_ones(args[0]).to(kwargs.get("dtype"))
        if operation is aten.copy_.default and not is_there(args[0]):
            return args[0].fill_(1)
        if launches(operation):
            self.operations[self.iteration][str(operation).removeprefix("aten.")] += 1
        result = self.pretend(operation, args, kwargs)
        for one in tree_leaves(result):
            if isinstance(one, FakeTensor) and one.dtype in (torch.float64, torch.complex128):
                self.mistake(f"{operation} computes in float64")
        return result

    def mistake(self, sentence: str) -> None:
        self.mistakes[self.iteration][f"{sentence} ({place()})"] += 1

    def pretend(self, operation: Any, args: Any, kwargs: Any) -> Any:
        shapes = tree_map_only(Tensor, self.as_fake, (args, kwargs))
        if operation is aten.lift_fresh.default:
            return shapes[0][0]
        try:
            with self.fake:
                return operation(*shapes[0], **shapes[1])
        except DynamicOutputShapeException:
            self.mistake(f"{operation} waits for the device")
            args, kwargs = tree_map_only(Tensor, as_ones, (args, kwargs))
            return tree_map_only(Tensor, lambda one: self.as_fake(one.cuda()), operation(*args, **kwargs))

    def as_fake(self, tensor: Tensor) -> Tensor:
        return tensor if isinstance(tensor, FakeTensor) else self.fake.from_tensor(tensor)


def is_there(tensor: Tensor) -> bool:
    return tensor.device.type == "cuda"


def waits(operation: Any, args: Any, kwargs: Any, target: torch.device) -> bool:
    """Whether the host waits until the device has done all that it was given.

    A copy does unless it is asynchronous and, where it comes from the host, from pinned memory.
    """
    if operation in (aten._local_scalar_dense.default, aten.lift_fresh.default):  # item, torch.tensor
        return True
    if operation is aten._to_copy.default:
        source, asynchronous = args[0], kwargs.get("non_blocking")
    elif operation is aten.copy_.default:
        source, target, asynchronous = args[1], args[0].device, args[2:] == (True,)
    else:
        return False
    if source.device.type == target.type or not source.numel():
        return False
    return not asynchronous or not (is_there(source) or source.is_pinned())
