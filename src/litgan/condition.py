"""What a sample is made for or from: nothing (0), one of n classes (n), or a float tensor (its shape).

All that asks which of these a GAN has is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Condition: TypeAlias = int | tuple[int, ...]  # 0, the number of classes, or the shape of one condition


def as_condition(condition: int | Sequence[int]) -> Condition:
    """A number as it is, any sequence as a tuple."""
    return condition if isinstance(condition, int) else tuple(condition)


def as_plain(condition: Condition) -> int | list[int]:
    """For files: a shape as a list."""
    return condition if isinstance(condition, int) else list(condition)


def num_classes(condition: Condition) -> int:
    """The number of classes; 0 if there are none."""
    return condition if isinstance(condition, int) else 0


def describe(condition: Condition) -> str:
    """For messages: labels of 3 classes, conditions of shape (1, 8, 8), or no condition."""
    if isinstance(condition, int):
        return f"labels of {condition} classes" if condition else "no condition"
    return f"conditions of shape {condition}"


def probe(condition: Condition, count: int, device: torch.device | str = "cpu") -> Tensor | None:
    """Conditions of `count` samples, for a network to be tried out with: the last class, or zeros."""
    if isinstance(condition, int):
        return torch.full((count,), condition - 1, device=device) if condition else None
    return torch.zeros(count, *condition, device=device)


def check_condition(given: Any, condition: Condition) -> Tensor | None:
    """The condition of a batch; labels, int [B], are left out where there is no condition.

    Raises ValueError if it is of another kind or shape.
    """
    if isinstance(condition, int):
        is_label = isinstance(given, Tensor) and given.ndim == 1 and not given.is_floating_point()
        if is_label if condition else is_label or given is None:
            return given if condition else None
    elif isinstance(given, Tensor) and given.is_floating_point() and given.shape[1:] == condition:
        return given
    kind = f"{given.dtype} {list(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
    raise ValueError(
        f"The condition of a batch is {kind} where the GAN was built for {describe(condition)}: give the GAN "
        "condition 0, the number of classes (int64 [B]) or the shape of a float tensor [B, *condition]."
    )


def choose_conditions(
    given: Tensor | Sequence[int] | None, first: int, count: int, condition: Condition
) -> Tensor | None:
    """Conditions of samples `first` and following: those given, from the first one on, repeated as needed.

    None stands for all classes in turn. A tensor's sides may be others than those of `condition`.

    Raises ValueError if they are of another kind, or left out where they are tensors.
    """
    if isinstance(condition, int):
        if not isinstance(given, Tensor) or not given.is_floating_point():
            return choose_classes(given, first if given is None else 0, count, condition)
    elif isinstance(given, Tensor) and given.is_floating_point() and given.ndim == 1 + len(condition):
        return given[torch.arange(count) % len(given)]
    raise ValueError(
        f"This GAN has {describe(condition)}: give sample() such ones, e.g. data.eval_conditions(count)."
    )


def choose_classes(
    classes: Tensor | Sequence[int] | None, first: int, count: int, num_classes: int
) -> Tensor | None:
    """Classes [count], int64, of samples `first` and following: those given or all, repeated as needed.

    None if there are no classes.

    Raises ValueError if one is not in 0 to num_classes - 1.
    """
    if classes is None:
        classes = range(num_classes)
    given = torch.as_tensor(classes, dtype=torch.int64, device="cpu")  # in one transfer
    if not num_classes and len(given):
        raise ValueError(f"Classes {given.tolist()[:8]} are given to a GAN without classes: leave them out.")
    if not num_classes:
        return None
    if len(given) == 0 or given.min() < 0 or given.max() >= num_classes:
        raise ValueError(
            f"Classes {given.tolist()[:8]} are not all among the {num_classes} classes: "
            f"use 0 to {num_classes - 1}."
        )
    return given[torch.arange(first, first + count) % len(given)]


def interpolate_conditions(ends: Tensor | None, steps: int) -> Tensor | None:
    """Conditions [steps, ...] on the straight line between two; of classes the first one throughout."""
    if ends is None:
        return None
    if not ends.is_floating_point():
        return ends[:1].expand(steps)
    share = torch.linspace(0.0, 1.0, steps, device=ends.device).view(-1, *[1] * (ends.ndim - 1))
    return torch.lerp(ends[:1], ends[1:2], share)


def has_pairs(condition: Condition, data: object) -> bool:
    """Whether each real sample of the data is the one that its condition, a tensor, asks for."""
    return isinstance(condition, tuple) and getattr(data, "paired", True)
