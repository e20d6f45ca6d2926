"""Verdicts from vital signs made by hand: when each holds, when it is raised, and when it clears."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from litgan.diagnosis.verdicts import VERDICTS, Factors, Judge, Judgement, remedy_for

HEALTHY = {
    "derivative": 1.0, "doubt": 0.9, "gradient": 1e5, "step": 1e-3, "feedback": 1.0, "separation": 0.8,
    "diversity": 1.0, "turning": 0.1, "weights_generator": 10.0, "weights_discriminator": 10.0,
    "logits": 1.0, "overfitting": 0.1, "overfitting_sigmas": 1.0,
}  # fmt: skip
ILL: list[tuple[str, dict[str, float], dict[str, float]]] = [  # name, what makes it hold, the same just not
    ("SATURATED", {"derivative": 0.0099}, {"derivative": 0.0101}),
    ("VANISHED", {"gradient": 0.99}, {"gradient": 1.01}),
    ("VANISHED", {"step": 1.1e-7}, {"step": 1.3e-7}),
    ("VANISHED", {"feedback": 0.9e-3, "separation": 0.76}, {"feedback": 1.1e-3, "separation": 0.76}),
    ("VANISHED", {"feedback": 0.9e-3, "separation": 0.76}, {"feedback": 0.9e-3, "separation": 0.74}),
    ("OVERPOWERED", {"doubt": 0.19, "separation": 1.0}, {"doubt": 0.21, "separation": 1.0}),
    ("OVERPOWERED", {"doubt": 0.19, "separation": 1.0}, {"doubt": 0.19, "separation": 0.998}),
    ("COLLAPSED", {"diversity": 0.09}, {"diversity": 0.11}),
    ("OSCILLATING", {"turning": -0.51}, {"turning": -0.49}),
    ("DIVERGED", {"weights_generator": 101.0}, {"weights_generator": 99.0}),
    ("DIVERGED", {"weights_discriminator": 101.0}, {"weights_discriminator": 99.0}),
    ("DIVERGED", {"logits": 1.01e4}, {"logits": 0.99e4}),
    ("DIVERGED", {"feedback": math.inf}, {}),
    (
        "MEMORISING",
        {"overfitting": 0.51, "overfitting_sigmas": 4.1},
        {"overfitting": 0.49, "overfitting_sigmas": 4.1},
    ),
    (
        "MEMORISING",
        {"overfitting": 0.51, "overfitting_sigmas": 4.1},
        {"overfitting": 0.51, "overfitting_sigmas": 3.9},
    ),
]


def look(judge: Judge, **changes: float) -> Judgement:
    return judge(HEALTHY | changes)


def holding(judgement: Judgement) -> set[str]:
    return {name for name, finding in judgement.findings.items() if finding.holds}


@pytest.mark.parametrize(("name", "ill", "well"), ILL)
def test_each_holds_beyond_its_threshold_and_alone(
    name: str, ill: dict[str, float], well: dict[str, float]
) -> None:
    judge = Judge(patience=3)
    assert holding(look(judge)) == set()
    judgement = look(judge, **ill)
    assert holding(judgement) == {name}
    assert holding(look(judge, **well)) == set()
    finding = judgement.findings[name]
    assert finding.value in {*ill.values(), ill.get("weights_generator", 0) / 10, 10.1}


def test_every_verdict_is_tried_above() -> None:
    assert {name for name, _, _ in ILL} == set(VERDICTS)


@pytest.mark.parametrize("name", [name for name in VERDICTS if name != "DIVERGED"])
def test_raised_after_patience_once_and_cleared_after_as_many(name: str) -> None:
    ill = next(ill for which, ill, _ in ILL if which == name)
    judge = Judge(patience=3)
    look(judge)
    said = [look(judge, **ill) for _ in range(5)] + [look(judge) for _ in range(4)]
    assert [one.raised for one in said] == [[], [], [name], *[[]] * 6]
    assert [one.cleared for one in said] == [*[[]] * 7, [name], []]
    assert [look(judge, **ill).raised for _ in range(3)] == [[], [], [name]], "and again"


def test_an_interruption_starts_the_count_anew() -> None:
    judge = Judge(patience=3)
    ill = {"diversity": 0.0}
    for changes in ({}, ill, ill, {}, ill, ill):
        assert look(judge, **changes).raised == []
    assert look(judge, **ill).raised == ["COLLAPSED"]
    for changes in ({}, {}, ill, {}, {}):
        assert look(judge, **changes).cleared == []
    assert look(judge).cleared == ["COLLAPSED"] and judge.raised == set()


def test_divergence_needs_no_second_look() -> None:
    judge = Judge(patience=3)
    assert look(judge, derivative=math.nan).raised == ["DIVERGED"]


def test_the_first_look_is_the_yardstick() -> None:
    judge = Judge(patience=1)
    assert look(judge, feedback=1e-6, weights_generator=1e3, separation=0.9).raised == []
    assert look(judge, feedback=1e-8, weights_generator=1e3, separation=0.9).raised == []
    assert look(judge, feedback=0.9e-9, weights_generator=1e3, separation=0.9).raised == ["VANISHED"]
    judge = Judge(patience=1)
    assert look(judge, feedback=0.0, weights_generator=0.0, separation=0.9).raised == []
    assert look(judge, feedback=0.0, weights_generator=5.0, separation=0.9).raised == [], (
        "of nothing, no share"
    )


def test_weights_are_measured_against_those_of_the_start_where_these_are_known() -> None:
    judge = Judge(patience=3, first={"weights_generator": 0.9, "weights_discriminator": 9.0})
    judgement = look(judge)
    assert judgement.raised == ["DIVERGED"]
    assert judgement.findings["DIVERGED"].value == pytest.approx(10 / 0.9)
    assert judge.first == HEALTHY | {"weights_generator": 0.9, "weights_discriminator": 9.0}


def test_a_critic_may_tell_all_apart() -> None:
    """The derivative of Wasserstein's loss is 1 everywhere."""
    assert look(Judge(patience=1), separation=1.0, doubt=1.0).raised == []


def test_without_a_held_out_split_there_is_no_verdict_on_memory() -> None:
    unseen = {key: value for key, value in HEALTHY.items() if not key.startswith("overfitting")}
    assert "MEMORISING" not in Judge()(unseen).findings


def test_healthy_once_nothing_has_held_for_as_long_as_patience() -> None:
    judge = Judge(patience=2)
    seen = []
    for changes in ({}, {}, {"doubt": 0.1}, {"diversity": 0.0}, {}, {}):
        look(judge, **changes)
        seen.append(judge.healthy)
    assert seen == [False, True, True, False, False, True]
    judge.restart()
    assert not judge.healthy and judge.first == HEALTHY


def test_the_judges_state_survives_json_and_goes_on() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"turning": -0.9},
        {"turning": -0.9, "logits": 2e4},
        {"turning": -0.9},
    ]
    whole, cut = Judge(patience=3), Judge(patience=3)
    for one in changes[:3]:
        look(whole, **one), look(cut, **one)
    resumed = Judge(patience=3)
    resumed.load_state_dict(json.loads(json.dumps(cut.state_dict())))
    assert look(whole, **changes[3]) == look(resumed, **changes[3])
    assert resumed == whole and whole.raised == {"OSCILLATING"}, "and divergence has cleared at once, too"


@pytest.mark.parametrize("name", VERDICTS)
def test_what_people_are_told(name: str) -> None:
    verdict = VERDICTS[name]
    for sentence in (verdict.meaning, verdict.remedy):
        assert sentence.endswith(".") and sentence[0].isupper() and 40 < len(sentence) < 200


@pytest.mark.parametrize(
    ("generator", "discriminator", "factors"),
    [
        (20.0, 1.0, (0.05, 1.0, 2.0)),
        (1.0, 50.0, (1.0, 0.02, 2.0)),
        (3.0, 1.0, (0.1, 1.0, 2.0)),
        (1e4, 1.0, (0.01, 1.0, 2.0)),
        (math.inf, 1.0, (0.01, 1.0, 2.0)),
        (math.inf, math.inf, (1.0, 0.01, 2.0)),
        (0.0, 0.0, (1.0, 0.1, 2.0)),
    ],
)
def test_who_went_astray_is_slowed_by_how_far(
    generator: float, discriminator: float, factors: tuple[float, ...]
) -> None:
    assert remedy_for(generator=generator, discriminator=discriminator) == pytest.approx(factors)


def test_factors() -> None:
    both = Factors(generator_rate=0.2) * Factors(generator_rate=0.5, penalty=2.0)
    assert both == Factors(0.1, 1.0, 2.0)
    assert str(both) == "the generator's learning rate x 0.1, penalty weights x 2"
    assert str(Factors()) == "nothing"
