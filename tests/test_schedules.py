from __future__ import annotations

import math

import pytest

from litgan.schedules import Constant, Cosine, Linear, WarmUp, value_at


@pytest.mark.parametrize(
    ("images", "expected"),
    [(0, 4.0), (100, 4.0), (150, 3.5), (200, 3.0), (300, 2.0), (10**9, 2.0)],
)
def test_linear(images, expected):
    assert Linear(4.0, 2.0, images=200, begin=100)(images) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (0, 1.0),
        (100, 1.0),
        (150, 0.5 + math.sqrt(1 / 8)),
        (200, 0.5),
        (250, 0.5 - math.sqrt(1 / 8)),
        (999, 0.0),
    ],
)
def test_cosine(images, expected):
    assert Cosine(1.0, 0.0, images=200, begin=100)(images) == pytest.approx(expected, abs=1e-12)


def test_warm_up_multiplies_what_follows():
    assert [WarmUp(10)(n) for n in (0, 1, 5, 10, 11)] == pytest.approx([0, 0.1, 0.5, 1, 1])
    decaying = WarmUp(10, then=Linear(2.0, 0.0, images=100))
    assert [decaying(n) for n in (0, 5, 10, 50, 100)] == pytest.approx([0, 0.95, 1.8, 1.0, 0.0])
    assert WarmUp(10, then=3.0)(20) == 3.0


def test_a_number_is_a_schedule_too():
    assert value_at(0.25, 10) == value_at(Constant(0.25), 10) == 0.25
    assert isinstance(value_at(1, 0), float)
    assert value_at(Linear(0, 1, 10), 5) == 0.5


@pytest.mark.parametrize("kind", [Linear, Cosine])
@pytest.mark.parametrize(("images", "begin"), [(0, 0), (-5, 0), (5, -1)])
def test_impossible_spans(kind, images, begin):
    with pytest.raises(
        ValueError, match=f"{kind.__name__} cannot run over images={images} from begin={begin}:"
    ):
        kind(0.0, 1.0, images, begin)
