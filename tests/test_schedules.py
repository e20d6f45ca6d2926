from __future__ import annotations

import math

import pytest

from litgan.schedules import Cosine, Exponential, Linear, WarmUp, value_at


@pytest.mark.parametrize(
    ("schedule", "expected"),  # expected at 0, 100, 150, 200, 250, 300 and 10^9 images
    [
        (Linear(4.0, 2.0, images=200, begin=100), [4.0, 4.0, 3.5, 3.0, 2.5, 2.0, 2.0]),
        (
            Cosine(1.0, 0.0, images=200, begin=100),
            [1.0, 1.0, 0.5 + math.sqrt(1 / 8), 0.5, 0.5 - math.sqrt(1 / 8), 0.0, 0.0],
        ),
    ],
)
def test_ramps(schedule, expected):
    found = [schedule(images) for images in (0, 100, 150, 200, 250, 300, 10**9)]
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_warm_up_multiplies_what_follows():
    assert [WarmUp(10)(n) for n in (0, 1, 5, 10, 11)] == pytest.approx([0, 0.1, 0.5, 1, 1])
    decaying = WarmUp(10, then=Linear(2.0, 0.0, images=100))
    assert [decaying(n) for n in (0, 5, 10, 50, 100)] == pytest.approx([0, 0.95, 1.8, 1.0, 0.0])
    assert WarmUp(10, then=3.0)(20) == 3.0


def test_a_half_life_halves():
    assert [Exponential(100)(n) for n in (0, 100, 150)] == pytest.approx([1, 0.5, 0.5**1.5])
    assert Exponential(100, start=0.8)(200) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="Exponential has halflife=0:"):
        Exponential(0)


def test_a_number_is_a_schedule_too():
    assert value_at(0.25, 10) == 0.25
    assert isinstance(value_at(1, 0), float)
    assert value_at(Linear(0, 1, 10), 5) == 0.5


@pytest.mark.parametrize("kind", [Linear, Cosine])
@pytest.mark.parametrize(("images", "begin"), [(0, 0), (-5, 0), (5, -1)])
def test_impossible_spans(kind, images, begin):
    with pytest.raises(
        ValueError, match=f"{kind.__name__} cannot run over images={images} from begin={begin}:"
    ):
        kind(0.0, 1.0, images, begin)
