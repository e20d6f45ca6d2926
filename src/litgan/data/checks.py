"""Checks of what a data set reads, each with one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from litgan.data.loader import SampleFiles


def check_split(
    data: Any, samples: Tensor | SampleFiles, conditions: Tensor | SampleFiles | None, split: str
) -> None:
    """Compares what a `GANDataModule` has read with what it says of itself.

    Raises ValueError: there are no samples; labels or conditions are missing, too few, out of range or of the
    wrong shape; or samples are of the wrong shape.
    """
    name, classes = type(data).__name__, data.num_classes
    if not len(samples):
        raise ValueError(f"{name} has no samples ({split}): let {name}.read give at least one.")
    if conditions is not None and len(conditions) != len(samples):
        kind = "label" if isinstance(data.condition, int) else "condition"
        counts = f"{len(samples)} samples and {len(conditions)} {kind}s"
        raise ValueError(f"{name} has {counts} ({split}): give each one {kind}.")
    if classes and not isinstance(conditions, Tensor):
        raise ValueError(f"{name} has no labels: give num_classes 0, not {classes}.")
    if isinstance(conditions, Tensor) and classes:
        _check_range(name, conditions, classes, split)
    _check_shape(name, samples, "samples", "sample_shape", data.sample_shape, data.encode)
    if isinstance(data.condition, tuple):
        _check_shape(name, conditions, "conditions", "condition", data.condition, data.encode_condition)


def _check_range(name: str, labels: Tensor, classes: int, split: str) -> None:
    if len(wrong := ((labels < 0) | (labels >= classes)).nonzero()):
        index = int(wrong[0])
        raise ValueError(
            f"Labels out of range: sample {index} of {name} ({split}) has label {int(labels[index])}, "
            f"and num_classes {classes} allows 0 to {classes - 1}: correct either."
        )


def _check_shape(
    name: str, stored: Tensor | SampleFiles | None, what: str, option: str, wanted: tuple[int, ...],
    encode: Callable[[Tensor], Tensor],
) -> None:  # fmt: skip
    shape = None if stored is None else tuple(encode(stored[0][None])[0].shape)
    if shape != wanted:
        raise ValueError(
            f"{name}.read gives {what} of shape {shape} where its {option} is {wanted}: make one follow the "
            "other."
        )


def check_finite(stored: Tensor | SampleFiles | None, name: str) -> None:
    """Raises ValueError if a tensor [N, ...] holds NaN or infinity; `name` is a format for its index."""
    if not isinstance(stored, Tensor) or not stored.is_floating_point():
        return
    for first in range(0, len(stored), 4096):
        finite = stored[first : first + 4096].flatten(1).isfinite().all(1)
        if not finite.all():
            place = name.format(first + int((~finite).nonzero()[0]))
            raise ValueError(f"{place} holds values that are not finite: correct or remove it.")


def check_num_classes(name: str, num_classes: int, known: int) -> None:
    """Refuse a `num_classes` that is neither 0 nor the `known` number of classes of data set `name`."""
    if num_classes not in (0, known):
        raise ValueError(
            f"{name} has {known} classes: give num_classes {known} to train with labels or 0 without, "
            f"not {num_classes}."
        )
