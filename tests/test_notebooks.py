"""The notebooks of the core run, and show numbers that bear their sentences out."""

from __future__ import annotations

import re

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


def test_the_adversary_beside_l1_brings_the_set_of_digits_nearer_for_little_l1() -> None:
    lines = re.findall(r"L1 ([\d.]+)  Fréchet distance ([\d.]+)", printed("04_from_an_input_to_a_sample"))
    (alone, far), _, (both, near) = ([float(number) for number in line] for line in lines)
    assert near < far / 3 and alone < both < 1.2 * alone
