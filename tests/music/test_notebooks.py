"""The notebook of music runs, and shows a game that was won."""

from __future__ import annotations

from shared.notebooks import Notebooks, right


class TestNotebooks(Notebooks):
    folder = "music"


def test_it_ends_with_its_truth_learned() -> None:
    before, after = right("music/scales")
    assert before < 95 <= after
