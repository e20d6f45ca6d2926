"""Commands that documents and recipes show."""

from __future__ import annotations

import functools
import shlex

import pytest

from litgan import cli, commands, extras
from litgan.recipe import Recipe
from litgan.recipe_files import find_recipes
from litgan.seeds import take_seeds


def check(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parses a command without running it.

    Raises:
        ArgumentError, ValueError: if it would end in the complaint that its user would read.
    """
    _, verb, *arguments = shlex.split(line, comments=True)
    if verb not in cli.VERBS:
        raise ValueError(f"there is no verb {verb}")
    arguments = [part for part in arguments if part != "..."]
    if verb in ("fit", "validate"):
        for stage in ("before_instantiate_classes", "instantiate_classes", "after_instantiate_classes"):
            monkeypatch.setattr(Recipe, stage, lambda self: None)
        Recipe(find_recipes(take_seeds(arguments)[1]), verb)
    else:
        module = commands if hasattr(commands, verb) else extras.wing(verb)
        signature = functools.wraps(getattr(module, verb))
        monkeypatch.setattr(module, verb, signature(lambda **options: None))
        cli.VERBS[verb](arguments)
