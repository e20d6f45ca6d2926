"""Batches of any loader."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def unpack(batch: Any, num_classes: int) -> tuple[Tensor, Any]:
    """(real samples, condition or None) of a batch.

    Labels of a data set, int [B], are left out where a GAN has no classes.

    Raises:
        ValueError: if the batch is neither `real`, (real,), (real, condition) nor a dict with these names.
    """
    parts = batch if isinstance(batch, (Mapping, tuple, list)) else (batch,)
    if not isinstance(parts, Mapping):
        parts = dict(zip(("real", "condition"), parts, strict=False)) if 1 <= len(parts) <= 2 else {}
    real, condition = parts.get("real"), parts.get("condition")
    if not isinstance(real, Tensor):
        names = f" of {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
        raise ValueError(
            f"A batch is a {type(batch).__name__}{names}: let the loader give real samples, "
            '(real, condition) or {"real": ..., "condition": ...}.'
        )
    is_label = isinstance(condition, Tensor) and condition.ndim == 1 and not condition.is_floating_point()
    return real, None if is_label and not num_classes else condition
