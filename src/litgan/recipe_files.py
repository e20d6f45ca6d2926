"""The YAML files of a command line: found by path or name, and checked before anything slow is imported."""

from __future__ import annotations

from pathlib import Path

import yaml

PACKAGE = Path(__file__).resolve().parent
FOLDERS = (PACKAGE.parents[1] / "configs", PACKAGE / "configs")  # in the repository; in an installation


def find_recipes(arguments: list[str]) -> list[str]:
    """A command line in which each `--config` names a file: `--config digits` is the recipe of that name.

    Raises ValueError if there is no such file, or if it is no valid YAML.
    """
    found = list(arguments)
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option not in ("--config", "-c"):
            continue
        if equals:
            found[place] = f"{option}={find_recipe(value)}"
        elif place + 1 < len(arguments):
            found[place + 1] = find_recipe(arguments[place + 1])
    return found


def find_recipe(name: str) -> str:
    """Path of a recipe: the file `name`, else the one of the package, such as digits or overlays/ddp."""
    candidates = [Path(name), *(folder / f"{name}.yaml" for folder in FOLDERS)]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise ValueError(
            f"There is no recipe {name}: give --config one that exists, e.g. configs/digits.yaml."
        )
    try:
        yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The recipe {path} is no valid YAML ({reason}): correct it there.") from error
    return str(path)
