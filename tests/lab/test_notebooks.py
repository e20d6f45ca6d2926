"""The notebook of the laboratory runs, and shows numbers that bear its sentences out."""

from __future__ import annotations

import re

import pytest
from shared.notebooks import Notebooks, printed


class TestNotebooks(Notebooks):
    folder = "lab"


def test_the_article_on_backpropagation_shows_what_it_says():
    """Its outputs are those of the long form, and each sentence that leans on a number leans on these."""
    said = printed("lab/the_role_of_backpropagation")

    def numbers(pattern):
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
