"""Recipes are found by path or name, and what is wrong with the files is said before torch is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from litgan import __version__, cli
from litgan.recipe_files import FOLDERS, find_recipe, find_recipes

ROOT = Path(__file__).parents[1]


def test_a_name_finds_what_comes_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(find_recipe("digits")) == FOLDERS[0] / "digits.yaml"
    assert Path(find_recipe("overlays/ddp")) == FOLDERS[0] / "overlays" / "ddp.yaml"
    (tmp_path / "digits").write_text("seed: 1\n")
    assert find_recipe("digits") == "digits"  # a file of one's own comes first
    assert find_recipes(["--config", "ring", "--config=digits", "--x", "--config"]) == [
        "--config", str(FOLDERS[0] / "ring.yaml"), "--config=digits", "--x", "--config",
    ]  # fmt: skip


def test_one_line_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [1\n")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for name in (str(broken), str(binary), str(tmp_path), "absent.yaml"):
        with pytest.raises(SystemExit) as stop:
            cli.main(["fit", "--config", name])
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2 and name in line


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "litgan fit"), (["--version"], 0, __version__), (["dream"], 2, "dream"),
        (["fit", "--config", "absent.yaml"], 2, "absent.yaml"),
    ],
)  # fmt: skip
def test_what_needs_no_torch_does_not_import_it(arguments: list[str], code: int, said: str) -> None:
    script = (
        "import sys; from litgan import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "finally: assert not {'torch', 'lightning', 'numpy'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.returncode == code and said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_pins_are_the_same_for_pip_and_uv() -> None:
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [pin.replace('"', "'") for line in lines if (pin := re.sub(r"\s*#.*", "", line).strip())]
    assert (
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["constraint-dependencies"] == pins
    )
