"""The notebooks of the core run, and show numbers that bear their sentences out."""

from __future__ import annotations

from shared.notebooks import Notebooks, printed, right


class TestNotebooks(Notebooks):
    """Those beside the folders of wings."""


def test_watching_a_gan_ends_with_the_ring_learned() -> None:
    covered, share = printed("01_watch_a_gan_learn").split(" of 8 modes, ")
    assert int(covered) >= 7
    assert int(share.split("%")[0]) >= 80


def test_digits_are_learned() -> None:
    before, after = right("02_digits")
    assert before < 15 <= after
