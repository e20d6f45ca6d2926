"""One readable sentence for whatever the parser of recipes and command lines has to complain about."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable

MISSING = re.compile(
    r"(?:module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'|No module named '(?P<absent>[\w.]+)')"
)
UNKNOWN = re.compile(
    r"(?:Group '(?P<group>[\w.]+)' does not accept|[Oo]ption) (?:option )?'(?P<name>[\w.]+)'(?: is not accepted)?"
)
KEY = re.compile(r'Parser key "(?P<key>[\w.]+)"')
CLASS = re.compile(r"class_path='(?P<path>[\w.]+)'")
VALUE = re.compile(r"Got value: (?P<value>.+)|Given value: (?P<given>.+)")
TYPE = re.compile(r"Expected an? <class '(?P<type>\w+)'>|Expected an? (?P<other>[^.\n]+)")


def explain(message: str, known: Iterable[str] = ()) -> str:
    """The culprit and the remedy.

    Args:
        message: what jsonargparse says.
        known: all keys of the parser, for guessing what was meant.
    """
    if match := re.search(r"unrecognized arguments: --(?P<name>[\w.+]+)", message):
        return f"there is no option --{match['name']}{_meant(match['name'], known, '--')}"
    key = ".".join(dict.fromkeys(KEY.findall(message)))
    if (match := UNKNOWN.search(message)) and "Expected" not in message.split(match[0])[0]:
        return _unknown_key(message, key or match["group"] or "", match["name"], known)
    if match := MISSING.search(message):
        if match["absent"]:
            return f"{key} names something in {match['absent']}, which cannot be imported: install it or correct the path."
        return f"{key} names {match['module']}.{match['name']}, which does not exist{_meant(match['name'], _classes(match['module']))}"
    value = next((m["value"] or m["given"] for m in VALUE.finditer(message)), None)
    if key and value is not None:
        types = dict.fromkeys(m["type"] or m["other"].strip() for m in TYPE.finditer(message))
        wanted = [name for name in types if not name.startswith(("NoneType", "path but", "dot import"))]
        return f"{key} is {value.strip()!r}: give {' or '.join(wanted) or 'another type'}."
    return " ".join(message.split())


def _unknown_key(message: str, group: str, name: str, known: Iterable[str]) -> str:
    if match := CLASS.search(message):
        module, _, cls = match["path"].rpartition(".")
        parameters = inspect.signature(getattr(importlib.import_module(module), cls)).parameters
        return f"{group} ({cls}) has no option {name}{_meant(name, parameters)}"
    inside = [one.removeprefix(f"{group}.") for one in known if one.startswith(f"{group}.")]
    return f"{group or 'the recipe'} has no option {name}{_meant(name, inside or known)}"


def _meant(name: str, known: Iterable[str], prefix: str = "") -> str:
    known = list(known)
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f": did you mean {prefix}{close[0]}?"
    return (
        f": it knows {', '.join(known[:12])}."
        if 0 < len(known) <= 12
        else ": see --help for those there are."
    )


def _classes(module: str) -> list[str]:
    found = vars(importlib.import_module(module))
    return [name for name, value in found.items() if inspect.isclass(value) and not name.startswith("_")]
