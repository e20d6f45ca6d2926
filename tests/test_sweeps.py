"""Sweeps: the command lines that W&B's agent makes of them are recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from shared import commands
from wandb.sdk.launch.sweeps import utils

from litgan.loggers import distance_keys
from litgan.recipe import Recipe

ROOT = Path(__file__).parents[1]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


def command_line(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What the agent starts on Linux, as `Agent._command_run` of wandb puts it together."""
    macros = utils.create_sweep_command_args({"args": {name: {"value": one} for name, one in values.items()}})
    macros |= {"env": ["/usr/bin/env"], "program": [sweep["program"]]}
    words: list[str] = []
    for word in utils.create_sweep_command(sweep["command"]):
        words += macros[word[2:-1]] if word.startswith("${") else [word]
    return words


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_each_extreme_of_a_sweep_parses_and_reaches_the_recipe(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    sweep = yaml.safe_load(path.read_text())
    assert sweep["metric"]["goal"] == "minimize" and distance_keys([{sweep["metric"]["name"]: 0.0}])
    parsed = []
    monkeypatch.setattr(Recipe, "after_instantiate_classes", lambda self: None)
    original = Recipe.parse_arguments
    monkeypatch.setattr(
        Recipe, "parse_arguments", lambda self, *given: (original(self, *given), parsed.append(self))
    )
    for end in (0, -1):
        choices = {
            name: one.get("values", [one.get("min"), one.get("max")])
            for name, one in sweep["parameters"].items()
        }
        values = {name: one[end] for name, one in choices.items()}
        env, *words = command_line(sweep, values)
        assert env == "/usr/bin/env" and words[:2] == ["litgan", "fit"]
        commands.check(" ".join(words), monkeypatch)
        dump = yaml.safe_load(parsed[-1].parser.dump(parsed[-1].config))
        for name, value in values.items():
            assert value in leaves(dump, name.split(".")), name


def leaves(node: Any, keys: list[str]) -> list[Any]:
    """Values under keys; items of lists, and what stands under init_args, are looked into."""
    if isinstance(node, list):
        return [leaf for one in node for leaf in leaves(one, keys)]
    if not keys:
        return [node]
    inner = node.get("init_args", {}) if keys[0] not in node else node
    return leaves(inner[keys[0]], keys[1:]) if keys[0] in inner else []
