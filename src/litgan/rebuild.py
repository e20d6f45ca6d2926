"""Builds objects from the recipe in a checkpoint. It is untrusted: none of its texts is parsed or imported.

A recipe is plain data. A mapping of `class_path` and `init_args` may stand only where the type hint of a
constructor names a class. The path is compared with the allowed ones before anything is imported, and its
class must be a subclass of the hint's. A parameter without a hint, or with Any, takes plain data.
"""

from __future__ import annotations

import dis
import importlib
import importlib.util
import inspect
import os
import re
import reprlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import NoneType, TracebackType, UnionType
from typing import Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn

PACKAGE = __name__.split(".")[0]  # a project has another name
PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
DEPTH, NODES, LENGTH, LARGEST = 32, 10_000, 4096, 2**63  # bounds of a recipe; of texts and lists; of integers
SENTENCES = (ValueError, OSError, RuntimeError, ImportError, FloatingPointError)
RAISE = dis.opmap["RAISE_VARARGS"]
LONGEST_PATH = 200
SIZED = (dict, list, str)
SEQUENCES = (list, Sequence, Iterable, Collection)
MAPPINGS = (dict, Mapping)
SCALARS: dict[Any, tuple[type, ...]] = {  # hints with the types that they take
    float: (int, float), int: (int,), bool: (bool,), str: (str,), Path: (str,), None: (NoneType,),
    NoneType: (NoneType,),
}  # fmt: skip
SHORT = reprlib.Repr()  # of untrusted values in errors
SHORT.maxlevel, SHORT.maxdict, SHORT.maxlist, SHORT.maxstring = 1, 2, 2, 60


class _MisfitError(ValueError):
    """A value that its place does not take; another member of a union may."""


class Parameter(NamedTuple):
    """What a constructor takes under a name."""

    hint: Any
    default: Any
    needed: bool
    by_position: bool


@dataclass(frozen=True)
class Builder:
    """Builds what a recipe describes of litgan's own classes, torch's optimizers and the modules of torch.nn.

    Args:
        trust: modules whose classes are allowed too, each by its name or several with commas between.
        source: file that the recipe is from; modules are not imported from its run's folder.
        download: whether data and weights that are missing here may be fetched.
    """

    trust: str | Sequence[str] = ()
    source: str | Path | None = None
    download: bool = False

    def build(self, cls: type, arguments: Any, place: str) -> Any:
        """The object of `cls`, chosen by us and not by the recipe, with arguments of plain data.

        Raises ValueError, which names their place in the recipe, if they do not fit the constructor or name
        what is not allowed.
        """
        values = self._arguments(cls, arguments, place)
        try:
            return cls(**values)
        except Exception as error:
            if is_sentence(error):
                raise
            _refuse(f"{place} ({cls.__name__}) cannot be made ({first_line(error)}).")

    def build_subclass(self, base: type, node: Any, place: str) -> Any:
        """The object that a mapping of `class_path` and `init_args` describes, of a subclass of `base`.

        Raises ValueError: one sentence, if it describes none, or what is not allowed.
        """
        cls, arguments = self._class(base, node, place)
        return self.build(cls, arguments, place)

    def value(self, hint: Any, node: Any, place: str) -> Any:
        """Plain data as a type hint asks for it: lists as tuples, integers as floats, mappings as objects.

        Raises ValueError: one sentence, if it does not fit.
        """
        kind, inner = get_origin(hint) or hint, get_args(hint)
        if kind in (Union, UnionType):
            for one in inner:
                with suppress(_MisfitError):
                    return self.value(one, node, place)
            _misfit(hint, node, place)
        if kind is Literal and not any(type(node) is type(one) and node == one for one in inner):
            _misfit(hint, node, place)
        if kind in SCALARS and type(node) not in SCALARS[kind]:
            _misfit(hint, node, place)
        if kind is Literal or kind in SCALARS:
            return kind(node) if kind in (float, Path) else node
        if kind in (*SEQUENCES, tuple):
            return self._list(hint, node, place)
        if kind in MAPPINGS:
            if type(node) is not dict or "class_path" in node:
                _misfit(hint, node, place)
            _, item = inner or (str, Any)
            return {key: self.value(item, one, f"{place}.{key}") for key, one in node.items()}
        if kind is Callable:
            return self._factory(hint, node, place)
        if isinstance(kind, type) and kind not in (object, Any):
            return self.build_subclass(kind, node, place)
        return _without_classes(node, place)

    def _list(self, hint: Any, node: Any, place: str) -> list[Any] | tuple[Any, ...]:
        kind, inner = get_origin(hint) or hint, get_args(hint) or (Any, ...)
        if type(node) is not list:
            _misfit(hint, node, place)
        if kind is not tuple or inner[1:] == (...,):
            inner = inner[:1] * len(node)
        elif len(inner) != len(node):
            _misfit(hint, node, place)
        values = [
            self.value(one, item, f"{place}.{index}")
            for index, (one, item) in enumerate(zip(inner, node, strict=True))
        ]
        return tuple(values) if kind is tuple else values

    def _factory(self, hint: Any, node: Any, place: str) -> Callable[..., Any]:
        """Makes an object of the class from what is passed first, e.g. the parameters of an optimizer."""
        passed, made = get_args(hint) or (..., Any)
        made = get_origin(made) or made
        if not isinstance(made, type) or made in (object, Any):
            _misfit(hint, node, place)
        cls, arguments = self._class(made, node, place)
        passed = 0 if passed is ... else len(passed)
        return partial(cls, **self._arguments(cls, arguments, place, passed=passed))

    def _arguments(self, cls: type, given: Any, place: str, passed: int = 0) -> dict[str, Any]:
        """The arguments of a constructor by keyword, without those that are `passed` by position."""
        if type(given) is not dict:
            _refuse(f"{place} is {SHORT.repr(given)}: give a mapping of arguments.")
        known = parameters(cls)
        by_position = [name for name, one in known.items() if one.by_position][:passed]
        known = {name: one for name, one in known.items() if name not in by_position}
        if unknown := [name for name in given if name not in known]:
            _refuse(f"{place} ({cls.__name__}) has no option {SHORT.repr(unknown[0])}.")
        if absent := [name for name, one in known.items() if one.needed and name not in given]:
            _refuse(f"{place} ({cls.__name__}) needs {', '.join(absent)}.")
        values = {name: self.value(known[name].hint, one, f"{place}.{name}") for name, one in given.items()}
        if "download" in known:
            values["download"] = self.download
        if "pretrained" in known and values.get("pretrained", known["pretrained"].default) is True:
            values["pretrained"] = False  # the checkpoint brings the weights
        if (
            "weights" in values
            and values["weights"] != known["weights"].default
            and _within(cls.__module__, (PACKAGE,))
        ):
            raise ValueError(
                f"The checkpoint's recipe takes the weights of {cls.__name__} from "
                f"{SHORT.repr(given['weights'])}, and none are read that a checkpoint names: choose the "
                "extractor yourself, e.g. with --extractor."
            )
        return values

    def _class(self, base: type, node: Any, place: str) -> tuple[type, Any]:
        """The class that a mapping names, a subclass of `base`, and its arguments."""
        if type(node) is not dict or type(node.get("class_path")) is not str:
            _misfit(base, node, place)
        if strange := [name for name in node if name not in ("class_path", "init_args")]:
            _refuse(f"{place} has {SHORT.repr(strange[0])} beside class_path and init_args.")
        cls = self._find(node["class_path"], place)
        if base not in cls.__mro__:
            _misfit(base, node, place)
        return cls, node.get("init_args", {})

    def _find(self, path: str, place: str) -> type:
        """The class of that name, if it is allowed."""
        if path in classes_of_torch():
            return classes_of_torch()[path]
        module, _, name = path.rpartition(".")
        if len(path) > LONGEST_PATH or not PATH.fullmatch(path):
            _refuse(f"{place} is {SHORT.repr(path)}, which names no class.")
        allowed = (PACKAGE, *self.trusted)
        if not _within(module, allowed):
            raise ValueError(
                f"The checkpoint's recipe asks for the class {path} at {place}: if you trust the code of the "
                f"module {module}, allow it with --trust {module} (in Python trust=({module!r},))."
            )
        found = getattr(self._import(module), name, None)
        if not isinstance(found, type):
            _refuse(f"{place} names {path}, which is no class.")
        if not _within(found.__module__, allowed):
            raise ValueError(
                f"The checkpoint's recipe asks at {place} for {path}, a class of the module "
                f"{found.__module__}: if you trust its code, allow it with --trust {found.__module__}."
            )
        return found

    @property
    def trusted(self) -> tuple[str, ...]:
        """Names of the modules that the user trusts. Raises ValueError if one is no name of a module."""
        given = [self.trust] if isinstance(self.trust, str) else self.trust
        names = tuple(name.strip() for text in given for name in text.split(","))
        if wrong := [name for name in names if not PATH.fullmatch(f"{name}.x")]:
            raise ValueError(f"--trust {wrong[0]!r} names no module: give one such as mine or mine.networks.")
        return names

    def _import(self, name: str) -> Any:
        """The module, unless it lies in the folder of the checkpoint's run."""
        parts, found = name.split("."), None
        if parts[0] != PACKAGE:  # the user trusts it, and has it here or installed
            search_working_directory()
        for module in (".".join(parts[:end]) for end in range(1, len(parts) + 1)):
            with _importing(name):
                spec = importlib.util.find_spec(module)
            files = [str(spec.origin)] if spec and spec.has_location else []
            for file in (spec and spec.submodule_search_locations) or files:
                if self._is_beside(Path(file)):
                    raise ValueError(
                        f"The checkpoint's recipe needs the module {module}, and {file} lies in the "
                        "checkpoint's own folder, from where nothing is imported: install it, or move either."
                    )
            with _importing(name), torch.device("cpu"):  # also where weights are made on the meta device
                found = importlib.import_module(module)
        return found

    def _is_beside(self, module: Path) -> bool:
        """Whether a file lies in the folder of the checkpoint's run; without one, beside the checkpoint."""
        if self.source is None:
            return False
        parent, folder = module.parent.resolve(), Path(self.source).resolve().parent
        if folder.name != "checkpoints":
            return parent == folder
        installed = parent.is_relative_to(Path(sys.prefix).resolve())  # in a project's own environment
        return parent.is_relative_to(folder.parent) and not installed


def search_working_directory() -> None:
    """Lets modules of the working directory be imported; what is installed comes first."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


STRICT = Builder()


def check_plain(recipe: Any) -> None:
    """Checks every node of a recipe, shared ones as often as they appear.

    Raises ValueError: one sentence, if something in it is no mapping, list, text, number, truth value or
    None, or if it is too deep or too large for a recipe.
    """
    waiting, visited = [(recipe, 1)], 0
    while waiting:
        node, depth = waiting.pop()
        visited += 1
        kind = type(node)
        if kind not in (*SIZED, int, float, bool, NoneType):
            raise ValueError(
                f"The checkpoint's recipe holds a {kind.__name__}, no plain data: do not trust it."
            )
        if kind is dict and not all(type(key) is str and key.isprintable() for key in node):
            raise ValueError("The checkpoint's recipe holds a key that is no readable text: do not trust it.")
        too_large = abs(node) >= LARGEST if kind is int else kind in SIZED and len(node) > LENGTH
        if too_large or visited + len(waiting) > NODES or depth > DEPTH:
            raise ValueError("The checkpoint's recipe is too deep or too large to be one: do not trust it.")
        if kind in (dict, list):
            waiting += [(one, depth + 1) for one in ([*node, *node.values()] if kind is dict else node)]


@cache
def parameters(cls: type) -> dict[str, Parameter]:
    """What a constructor takes by keyword: its parameters, then those of its bases that `**` passes on."""
    found: dict[str, Parameter] = {}
    for base in cls.__mro__:
        make = vars(base).get("__init__")
        if make is None:
            continue
        if not inspect.isfunction(make):
            break
        try:
            hints = get_type_hints(make)
        except Exception:  # names that are there for type checkers only
            hints = {}
        _, *own = inspect.signature(make).parameters.values()
        first = not found
        for one in own:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                needed, by_position = first and one.default is one.empty, one.kind is not one.KEYWORD_ONLY
                hint = hints.get(one.name, Any)
                found.setdefault(one.name, Parameter(hint, one.default, needed, by_position))
        if not any(one.kind is one.VAR_KEYWORD for one in own):
            break
    return found


@cache
def classes_of_torch() -> dict[str, type]:
    """The optimizers of torch.optim and the modules of torch.nn, by their exact names."""
    modules: list[tuple[Any, type]] = [(torch.optim, torch.optim.Optimizer), (nn, nn.Module)]
    return {
        name: cls
        for module, base in modules
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, base)
        for name in (f"{module.__name__}.{cls.__name__}", f"{cls.__module__}.{cls.__name__}")
    }


def _within(module: str, allowed: Iterable[str]) -> bool:
    return any(module == one or module.startswith(f"{one}.") for one in allowed)


def _origin(error: BaseException) -> TracebackType | None:
    """Where an error was raised, if that is in litgan's own code."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    own = last is not None and _within(str(last.tb_frame.f_globals.get("__name__")), (PACKAGE,))
    return last if own else None


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its full stop, or its kind: part of a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")


def is_sentence(error: BaseException) -> bool:
    """Whether a `raise` statement of litgan made the error; others are faults of its code or below it."""
    origin = _origin(error) if isinstance(error, SENTENCES) else None
    return origin is not None and origin.tb_frame.f_code.co_code[origin.tb_lasti] == RAISE


def find_sentence(error: BaseException | None) -> BaseException | None:
    """The error, or its cause, that litgan raised with a sentence; None if a fault of litgan came later."""
    while error is not None and not is_sentence(error):
        error = None if _origin(error) else error.__cause__ or error.__context__
    return error


def _without_classes(node: Any, place: str) -> Any:
    """Plain data, refused where it names a class."""
    if type(node) is dict and "class_path" in node:
        _misfit("plain data", node, place)
    children = node.items() if type(node) is dict else enumerate(node) if type(node) is list else ()
    for key, one in children:
        _without_classes(one, f"{place}.{key}")
    return node


@contextmanager
def _importing(module: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a module's own code raises
        raise ValueError(
            f"The checkpoint's recipe needs the module {module}, which cannot be imported "
            f"({type(error).__name__}: {first_line(error)}): install what it was trained with."
        ) from error


def _refuse(reason: str, kind: type[ValueError] = ValueError) -> NoReturn:
    raise kind(f"The checkpoint's recipe does not fit this version of {PACKAGE}: {reason}")


def _misfit(hint: Any, node: Any, place: str) -> NoReturn:
    wanted = hint if isinstance(hint, str) else inspect.formatannotation(hint)
    _refuse(f"{place} is {SHORT.repr(node)}: give {wanted}.", _MisfitError)
