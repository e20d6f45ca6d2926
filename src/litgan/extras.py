"""What may be absent: packages that only some media need, and wings that a project has deleted."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

PACKAGE = __name__.partition(".")[0]


def require(package: str, extra: str) -> ModuleType:
    """The module `package`, which comes with `pip install litgan[<extra>]`.

    Raises ImportError: one sentence that names both, if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"The package {package} is not installed: pip install {PACKAGE}[{extra}] brings it."
        ) from error


def wing(name: str) -> ModuleType | None:
    """The wing of this name, e.g. "lab"; None where a project has deleted it."""
    path = f"{PACKAGE}.{name}"
    return importlib.import_module(path) if importlib.util.find_spec(path) else None
