"""What every notebook owes: it runs from top to bottom; and what it printed when it was committed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[2] / "notebooks"


def printed(name: str) -> str:
    """What the committed notebook shows as text."""
    cells = nbformat.read(ROOT / f"{name}.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def right(name: str) -> tuple[float, float]:
    """The percentages that a notebook on a medium shows: right before training, and after."""
    (found,) = re.findall(r"right: ([\d.]+)% -> ([\d.]+)% in \d+ s of CPU time", printed(name))
    return float(found[0]), float(found[1])


class Notebooks:
    """Subclasses say which folder."""

    folder: ClassVar[str] = ""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "path" in metafunc.fixturenames:
            found = sorted((ROOT / self.folder).glob("*.ipynb"))
            metafunc.parametrize("path", found, ids=lambda path: path.stem)

    @pytest.mark.spawn
    def test_it_runs(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In its short form, where it has one."""
        monkeypatch.setenv("LITGAN_SHORT", "1")
        executed = nbclient.NotebookClient(
            nbformat.read(path, as_version=4), timeout=300, resources={"metadata": {"path": path.parent}}
        ).execute()
        outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
        assert any("image/png" in output.get("data", {}) for output in outputs)

    def test_it_is_small(self, path: Path) -> None:
        assert path.stat().st_size < 1_500_000
