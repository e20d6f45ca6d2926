"""Packages that only some media need."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(package: str, extra: str) -> ModuleType:
    """The module `package`, which comes with `pip install litgan[<extra>]`.

    Raises:
        ImportError: one sentence that names both, if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"The package {package} is not installed: pip install litgan[{extra}] brings it."
        ) from error
