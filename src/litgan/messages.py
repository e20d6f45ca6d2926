"""Sentences for the user: warnings, and one for whatever the parser of recipes and command lines refuses."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import operator
import re
from collections.abc import Iterable

ROOMS = (  # where the classes that recipes name live
    "litgan", "litgan.networks", "litgan.losses", "litgan.penalties", "litgan.schedules", "litgan.data",
    "litgan.zoo",
)  # fmt: skip
WORDS = {
    "int": "an integer", "float": "a number", "bool": "true or false", "str": "a text",
    "Sequence": "a list such as [a, b]", "list": "a list such as [a, b]", "tuple": "a list such as [a, b]",
}  # fmt: skip

MISSING = re.compile(
    r"(?:module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'|No module named '(?P<absent>[\w.]+)')"
)
UNKNOWN = re.compile(
    r"(?:Group '(?P<group>[\w.]+)' does not accept|[Oo]ption) (?:option )?'(?P<name>[\w.]+)'"
    r"(?: is not accepted)?"
)
KEY = re.compile(r'Parser key "(?P<key>[\w.]+)"')
CLASS = re.compile(r"class_path[= ]'(?P<path>[\w.]+)'")
CLASS_BEHIND = re.compile(r"\. Got value: Namespace\(" + CLASS.pattern)
STRANGER = re.compile(r"Import path (?:(?P<path>[\w.]+) )?does not correspond to a subclass of (?P<base>\w+)")
ABSENT = re.compile(r"the following arguments are required: (?P<names>[^\n]+)")
VALUE = re.compile(
    r"(?:Got value|Given value|dot import path string): (?P<value>.+?)(?=\. Got value: |$)", re.MULTILINE
)
NAME = operator.attrgetter("__name__")
TYPE = re.compile(r"Expected an? (?P<type>.+?)(?=\. Got value: |$)", re.MULTILINE)


def explain(message: str, known: Iterable[str] = ()) -> str:
    """The culprit and the remedy.

    Args:
        message: what jsonargparse says.
        known: all keys of the parser, for guessing what was meant.
    """
    message = re.sub(r"\n *- Expected a path but .*", "", message)  # said of every value that might be a file
    key = ".".join(dict.fromkeys(KEY.findall(message)))
    if match := re.search(r"unrecognized arguments: (?P<name>[^\s=]+)", message):
        return _unrecognised(match["name"], known)
    if match := re.search(r"File does not exist: '(?P<file>[^']+)'", message):
        return f"there is no recipe {match['file']}: give --config one that exists, e.g. configs/digits.yaml."
    if match := re.search(r"Problems parsing config: (?P<reason>.+)", message, re.DOTALL):
        return f"the recipe is no valid YAML ({' '.join(match['reason'].split())}): correct it there."
    if (match := UNKNOWN.search(message)) and "Expected" not in message.split(match[0])[0]:
        behind = CLASS_BEHIND.match(message, match.end())
        classes = [behind["path"]] if behind else CLASS.findall(message, 0, match.start())  # innermost last
        return _unknown_key(classes, key or match["group"] or "", match["name"], known)
    if match := MISSING.search(message):
        if match["absent"]:
            absent = match["absent"]
            return f"{key} needs {absent}, which cannot be imported: install it or correct the path."
        path, there = f"{match['module']}.{match['name']}", _classes(match["module"])
        fitting = [name for name in there if name.lower().endswith(key.rpartition(".")[2])]  # of generators
        return f"{key} names {path}, which does not exist{_meant(match['name'], fitting or there)}"
    if match := STRANGER.search(message):
        fitting = [path for path, cls in _ours().items() if match["base"] in map(NAME, cls.__mro__)]
        path = match["path"] or VALUE.findall(message)[-1]
        return f"{key} is {path}, which is no {match['base']}: give {_either(fitting) or 'one'}."
    if match := ABSENT.search(message):
        return _absent(message, key, match["names"].split(", "))
    if key and (match := VALUE.search(message)):
        return _wrong_value(key, match["value"].strip(), TYPE.findall(message))
    return " ".join(message.split())


def _unrecognised(name: str, known: Iterable[str]) -> str:
    if name.startswith("--"):
        return f"there is no option {name}{_meant(name[2:], known, '--')}"
    return f"the argument {name} is one too many: remove it, or write options as --section.key value."


def _unknown_key(classes: list[str], group: str, name: str, known: Iterable[str]) -> str:
    if classes:
        import jsonargparse

        module, _, cls = classes[-1].rpartition(".")
        options = jsonargparse.ArgumentParser().add_class_arguments(
            getattr(importlib.import_module(module), cls), fail_untyped=False
        )
        shown = "--help" if "." in group else f"--{group}.help {classes[-1]}"
        return f"{group} ({cls}) has no option {name}{_meant(name, options, shown=shown)}"
    inside = [one.removeprefix(f"{group}.") for one in known if one.startswith(f"{group}.")]
    return f"{group or 'the recipe'} has no option {name}{_meant(name, inside or known)}"


def _absent(message: str, key: str, names: list[str]) -> str:
    if match := CLASS.search(message):
        options = " and ".join(f"--{key}.{name}" for name in names)
        remedy = "a whole recipe with --config" if key == "model" else options
        return f"{key} ({match['path'].rpartition('.')[2]}) needs {', '.join(names)}: give {remedy}."
    remedy = "give a whole recipe with --config" if "data" in names else "see --help"
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} missing: {remedy}."


def _wrong_value(key: str, value: str, types: list[str]) -> str:
    wanted: list[str] = []
    for one in types:
        if match := re.search(r"Literal\[(?P<choices>.+)\]", one):
            wanted += [choice.strip("'") for choice in match["choices"].split(", ")]
        elif not one.startswith(("<class 'NoneType'>", "dot import path")):
            name = re.sub(r"<class '(.+)'>", r"\1", one).rpartition(".")[2]
            wanted.append(WORDS.get(name, name))
    if wanted:
        return f"{key} is {value!r}: give {_either(dict.fromkeys(wanted))}."
    paths = {path.rpartition(".")[2]: path for path in _ours()}
    close = [paths[name] for name in difflib.get_close_matches(value, paths, n=1, cutoff=0.5)]
    remedy = f"did you mean {close[0]}?" if close else "give a full name such as litgan.losses.Hinge."
    return f"{key} is {value!r}, which is no class that litgan knows: {remedy}"


def _meant(name: str, known: Iterable[str], prefix: str = "", shown: str = "--help") -> str:
    known = [one for one in known if not one.endswith("help")]
    if close := difflib.get_close_matches(name, known, n=1, cutoff=0.5):
        return f": did you mean {prefix}{close[0]}?"
    if 0 < len(known) <= 12:
        return f": give {_either(sorted(known))}."
    return f": see {shown} for those there are."


def _either(choices: Iterable[str]) -> str:
    *others, last = [*choices] or [""]
    return f"{', '.join(others)} or {last}" if others else last


def _ours() -> dict[str, type]:
    """The classes of litgan that a recipe may name, by their full names."""
    rooms = filter(importlib.util.find_spec, ROOMS)  # a wing may have been deleted
    return {f"{room}.{name}": cls for room in rooms for name, cls in _classes(room).items()}


def _classes(module: str) -> dict[str, type]:
    """What can be built from a module: its package's own public classes, without abstract ones."""
    package = module.split(".")[0]
    return {
        name: value
        for name, value in vars(importlib.import_module(module)).items()
        if inspect.isclass(value)
        and not inspect.isabstract(value)
        and not name.startswith("_")
        and value.__module__.startswith(f"{package}.")
    }
