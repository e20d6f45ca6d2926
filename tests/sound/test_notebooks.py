"""The notebook of sound runs, and shows a game that was won."""

from __future__ import annotations

from shared.notebooks import Notebooks, right


class TestNotebooks(Notebooks):
    folder = "sound"


def test_it_ends_with_its_truth_learned() -> None:
    before, after = right("sound/tones")
    assert before < 90 <= after
