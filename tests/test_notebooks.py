"""Every notebook runs from top to bottom, and shows numbers that bear its sentences out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its short form, where it has one."""
    monkeypatch.setenv("LITGAN_SHORT", "1")
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


def test_the_article_on_backpropagation_shows_what_it_says() -> None:
    """Its outputs are those of the long form, and each sentence that leans on a number leans on these."""
    path = next(path for path in NOTEBOOKS if path.stem.startswith("03"))
    outputs = [
        output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])
    ]
    said = "".join(output["text"] for output in outputs if output["output_type"] == "stream")

    def numbers(pattern: str) -> list[float]:
        (found,) = re.findall(pattern.replace("#", r"([-+.\de]+)"), said)
        return [float(number) for number in ([found] if isinstance(found, str) else found)]

    ends = {
        name: numbers(f"{name}: distance # at the start, # after 1000")[1]
        for name in ("intact", "signs only")
    }
    start, cut = numbers("cut: distance # at the start, # after 1000")
    assert ends["intact"] < start / 10 and ends["signs only"] < start / 5
    assert cut == pytest.approx(start, abs=1e-3)
    assert numbers("eigenvalues and closed form differ by # at most")[0] < 1e-12
    edge, predicted = numbers("converge from gamma # on; predicted #")
    assert edge == pytest.approx(predicted, abs=1e-6)
    rotation = [numbers(f"gamma {gamma}: strongest rotation .Im. #")[0] for gamma in ("0", "0.1", "0.3", "1")]
    assert rotation == sorted(rotation, reverse=True)
    assert numbers("Minimax lets #% of")[0] < 1 < 99 < numbers("NonSaturating lets #% of")[0]
    starved, fed = (numbers(f"descent, {name}: distance # -> #") for name in ("Minimax", "NonSaturating"))
    assert starved[1] > 0.95 * starved[0] and fed[1] < 0.6 * fed[0]


def test_four_media_end_with_their_truths_learned() -> None:
    (path,) = (path for path in NOTEBOOKS if path.stem == "02_four_media")
    notebook = nbformat.read(path, as_version=4)
    text = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    found = re.findall(r"^(\w+) +\(.*\) +([\d.]+)% -> +([\d.]+)% +\d+ s of CPU", text, re.MULTILINE)
    right = {medium: (float(before), float(after)) for medium, before, after in found}
    assert list(right) == ["pictures", "sound", "music", "text"]
    least = {"pictures": 15, "sound": 90, "music": 95, "text": 60}
    assert all(before < least[medium] <= after for medium, (before, after) in right.items())
    assert path.stat().st_size < 1_500_000
