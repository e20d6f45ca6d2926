"""Commands that the documents show are checked: each `litgan` line parses, options and all."""

from __future__ import annotations

import re
import shlex
import textwrap
from pathlib import Path

import pytest
from jsonargparse import ArgumentError
from shared import commands

from litgan import GAN
from litgan.rebuild import Builder
from litgan.recipe import Recipe

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"^(?:\$ |srun )?(litgan .*)")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown(text: str) -> list[str]:
    """The `litgan` commands in fenced blocks of a Markdown text, continued lines joined, comments cut off."""
    blocks = "\n".join(FENCE.findall(text)).replace("\\\n", " ")
    return [match[1] for line in blocks.splitlines() if (match := COMMAND.search(line))]


DOCUMENTS = [path for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")) if path.exists()]
EXECUTED = {
    ROOT / "docs" / name for name in ("make_it_yours.md", "from_an_input.md")
}  # by tests of their own
COMMANDS = [line for path in DOCUMENTS if path not in EXECUTED for line in shown(path.read_text())]


@pytest.mark.parametrize("line", dict.fromkeys(COMMANDS))
def test_command_parses(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    commands.check(line, monkeypatch)


@pytest.mark.parametrize(
    "line",
    [
        "litgan fit --config configs/absent.yaml",
        "litgan fit --config configs/digits.yaml --trainer.max_stepz 3",
        "litgan sample runs/last.ckpt --cont 3",
        "litgan evaluate",
        "litgan dream runs/last.ckpt",
    ],
)
def test_the_check_itself_finds_faults(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises((ArgumentError, ValueError)):
        commands.check(line, monkeypatch)


def test_commands_are_found_in_fenced_blocks() -> None:
    text = "litgan a\n```sh\n$ litgan b \\\n  --c d\npip install e\nlitgan f  # g\n```\n`litgan h`\n"
    assert [shlex.split(line, comments=True)[1:] for line in shown(text)] == [["b", "--c", "d"], ["f"]]


def test_the_step_that_the_readme_quotes_is_the_one_that_runs() -> None:
    code = (ROOT / "src/litgan/gan.py").read_text()
    quoted = next(
        block for block in FENCE.findall((ROOT / "README.md").read_text()) if "training_step" in block
    )
    for method in quoted.strip().split("\n\n"):
        assert textwrap.indent(method, "    ") in code


TESTS = sorted(
    {name for path in DOCUMENTS for name in re.findall(r"`(tests/[\w/.]+\.py::\w+)`", path.read_text())}
)


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_a_document_names_exists(name: str) -> None:
    path, function = name.split("::")
    assert re.search(rf"^def {function}\(", (ROOT / path).read_text(), re.MULTILINE)


OPTIONS = [
    options
    for options in re.findall(
        r"`(--(?:data|model|trainer)[\w.]* [^`]+)`", " ".join((ROOT / "README.md").read_text().split())
    )
    if "CKPT" not in options
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_the_readme_shows_build(
    options: str, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_images").symlink_to(pictures)
    recipe = "fashion_mnist" if "resolution 32" in options else "digits"
    recipe = Recipe(["--config", str(ROOT / f"configs/{recipe}.yaml"), *shlex.split(options)], "validate")
    assert recipe.model.sample(2).shape == (2, *recipe.datamodule.sample_shape)


def test_the_readme_shows_options() -> None:
    assert "--model.penalties litgan.penalties.R1" in OPTIONS and len(OPTIONS) > 4


@pytest.mark.parametrize("where", ["file", "command line"])
@pytest.mark.parametrize(
    ("penalties", "weights"),
    [
        ("R1", {"R1": 1.0}),
        ("litgan.penalties.R1", {"R1": 1.0}),
        ("[R1]", {"R1": 0.2}),  # of the same class: the recipe's options stay
        ("{class_path: R1, init_args: {weight: 3}}", {"R1": 3.0}),
        ("[R1, litgan.penalties.LeCam]", {"R1": 1.0, "LeCam": 0.3}),
    ],
)
def test_one_value_needs_no_list(
    penalties: str, weights: dict[str, float], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = {"penalties": penalties, "freeze": "generator.base", "extra_ema_halflives": "100"}
    options = [part for key, value in values.items() for part in (f"--model.{key}", value)]
    if where == "file":
        lines = "".join(f"  {key}: {value}\n" for key, value in values.items())
        (tmp_path / "mine.yaml").write_text(f"model:\n{lines}")
        options = ["--config", "mine.yaml"]
    model = Recipe(["--config", str(ROOT / "configs/digits.yaml"), *options], "validate").model
    rebuilt = Builder().build_subclass(GAN, model.recipe["model"], "model")  # as from a checkpoint
    for gan in (model, rebuilt):
        assert {type(penalty).__name__: penalty.weight for penalty in gan.penalties} == weights
        assert list(gan.extra_emas) == ["100"] and gan.frozen_parts == ("generator.base",)
