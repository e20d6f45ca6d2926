"""Parts of the step: batches, freezing, micro-batches, clipping, checks, float32 penalties, means to log."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan.condition import Condition, check_condition
from litgan.memory import explain_lack
from litgan.noise import Noise

Batch: TypeAlias = tuple[Tensor, Tensor | None]  # real samples [B, *sample_shape]; their conditions
Logs: TypeAlias = dict[str, Tensor]  # on the device, of any shape; their means are logged
LossFunction: TypeAlias = Callable[[Tensor, Tensor | None, Noise], tuple[Tensor, Logs]]
OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]


def as_tuple(given: Any) -> tuple[Any, ...]:
    """An argument that may be one value or several of them."""
    return tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)


def unpack(batch: Any, condition: Condition) -> Batch:
    """The real samples and conditions of a batch, for a GAN that was built for such a `condition`.

    Labels of a data set, int [B], are left out where there is none.

    Raises ValueError if the batch is neither `real`, (real,), (real, condition) nor a dict with these names,
    or if its condition is another one.
    """
    parts = batch if isinstance(batch, (Mapping, tuple, list)) else (batch,)
    if not isinstance(parts, Mapping):
        parts = dict(zip(("real", "condition"), parts, strict=False)) if 1 <= len(parts) <= 2 else {}
    real = parts.get("real")
    if not isinstance(real, Tensor):
        names = f" of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
        raise ValueError(
            f"A batch is a {type(batch).__name__}{names}: let the loader give real samples, "
            '(real, condition) or {"real": ..., "condition": ...}.'
        )
    return real, check_condition(parts.get("condition"), condition)


@contextmanager
def frozen(optimizers: Sequence[Optimizer], *, but: Optimizer) -> Iterator[None]:
    """In here only the parameters of the optimizer `but` require gradients."""
    parameters = {
        optimizer: [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for optimizer in optimizers
    }
    learning = {id(parameter) for parameter in parameters[but]}
    others = [p for each in parameters.values() for p in each if p.requires_grad and id(p) not in learning]
    for parameter in others:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad = True


def split(count: int, parts: int) -> list[slice]:
    """The rows of each of the equal parts of a batch; ValueError if it cannot be divided so."""
    if count % parts:
        raise ValueError(
            f"micro_batches is {parts}, which does not divide the {count} samples of a batch that "
            "each process gets: give a divisor of that number, or another batch_size."
        )
    size = count // parts
    return [slice(start, start + size) for start in range(0, count, size)]


def clip(optimizer: Optimizer, limits: float | dict[str, float] | None, name: str) -> None:
    """Scales the gradient of the network `name` down to its limit, by the norm over all its parameters."""
    limit = limits.get(name) if isinstance(limits, dict) else limits
    if limit is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, limit)


@contextmanager
def float32_penalties(device: torch.device) -> Iterator[bool]:
    """Turns autocast off where it computes in float16, and yields whether it did; does nothing elsewhere.

    float16 ends at 65504 and loses what is below 6e-8, and a gradient penalty squares gradients.
    """
    kind = device.type
    float16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    with torch.autocast(kind, enabled=False) if float16 else nullcontext():
        yield float16


@contextmanager
def explain_derivatives() -> Iterator[None]:
    """Raises ValueError with one sentence if a gradient penalty needs a derivative that PyTorch lacks."""
    try:
        yield
    except RuntimeError as error:
        if not (missing := re.search(r"derivative for (\S+) is not implemented", str(error))):
            raise
        raise ValueError(
            f"A gradient penalty differentiates twice, and PyTorch has no derivative of {missing[1]}: "
            "leave the penalty out, take litgan.penalties.FiniteDifferenceR1, or another network."
        ) from error


def explain_memory(name: str, count: int, parts: int) -> AbstractContextManager[None]:
    """Raises RuntimeError with one sentence if `count` samples in so many `parts` are too much."""
    more = next((number for number in range(parts + 1, count + 1) if count % number == 0), None)
    remedy = f"give model.micro_batches {more}" if more else "give smaller networks or samples"
    return explain_lack(f"an update of the {name} by {count // parts} samples at once", remedy)


def average(trainer: Trainer, values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The mean of each tensor over its elements and all ranks, in one transfer; numbers as they are."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    numbers = {name: float(value) for name, value in values.items() if not isinstance(value, Tensor)}
    if not tensors:
        return numbers
    means = torch.stack([value.float().mean() for value in tensors.values()])
    means = trainer.strategy.reduce(means, reduce_op="mean")
    return numbers | dict(zip(tensors, means.tolist(), strict=True))


def check_finite(name: str, value: float, images_seen: int, real: Tensor | None = None) -> None:
    """Raises FloatingPointError, with one sentence, if `value` is not finite.

    `real` is the batch that it comes from: then ValueError if that is the cause.
    """
    if not math.isfinite(value):
        if real is not None and not real.isfinite().all():
            raise ValueError(
                f"The data hold values that are not finite, in the batch after {images_seen:,} images: "
                "correct or remove these samples."
            )
        raise FloatingPointError(
            f"{name} became {value} after {images_seen:,} images: the last good checkpoint is kept; "
            "resume from it with lower learning rates, a larger penalty or --trainer.precision 32."
        )


def check_losses(values: Mapping[str, float], images_seen: int) -> None:
    """Raises FloatingPointError if a loss among the values to log is not finite."""
    for name, value in values.items():
        if name.startswith("loss/"):
            check_finite(name, value, images_seen)
