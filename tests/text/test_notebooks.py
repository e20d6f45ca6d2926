"""The notebook of text runs, and shows a game that was won."""

from __future__ import annotations

from shared.notebooks import Notebooks, right


class TestNotebooks(Notebooks):
    folder = "text"


def test_it_ends_with_its_truth_learned() -> None:
    before, after = right("text/grammar")
    assert before < 60 <= after
