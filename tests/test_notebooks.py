"""Every notebook runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    executed = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": path.parent}}
    ).execute()
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_watching_a_gan_ends_with_the_ring_learned() -> None:
    """The numbers that the committed notebook shows are those of a won game."""
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    (said,) = [output["text"] for output in notebook.cells[-1]["outputs"]]
    covered, share = said.split(" of 8 modes, ")
    assert int(covered) >= 7
    assert int(share.split("%")[0]) >= 80
