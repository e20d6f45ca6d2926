"""Failure states from hand-made metrics: when each holds, becomes active and clears."""

from __future__ import annotations

import json
import math

import pytest

from litgan.diagnosis.checks import CHECKS, Monitor, Scaling, rollback_scaling

HEALTHY = {
    "g_loss_gradient": 1.0, "d_loss_gradient": 0.9, "gradient_over_eps": 1e5, "step_ratio": 1e-3,
    "feedback_norm": 1.0, "auc": 0.8, "diversity": 1.0, "step_cosine": 0.1, "weight_norm_generator": 10.0,
    "weight_norm_discriminator": 10.0, "logits_rms": 1.0, "overfitting": 0.1, "overfitting_sigmas": 1.0,
    "pair_error": 1.0,
}  # fmt: skip
CASES = [  # name, metrics that show it, metrics just below the threshold
    ("SATURATED", {"g_loss_gradient": 0.0099}, {"g_loss_gradient": 0.0101}),
    ("VANISHED", {"gradient_over_eps": 0.99}, {"gradient_over_eps": 1.01}),
    ("VANISHED", {"step_ratio": 1.1e-7}, {"step_ratio": 1.3e-7}),
    ("VANISHED", {"feedback_norm": 0.9e-3, "auc": 0.76}, {"feedback_norm": 1.1e-3, "auc": 0.76}),
    ("VANISHED", {"feedback_norm": 0.9e-3, "auc": 0.76}, {"feedback_norm": 0.9e-3, "auc": 0.74}),
    ("OVERPOWERED", {"d_loss_gradient": 0.19, "auc": 1.0}, {"d_loss_gradient": 0.21, "auc": 1.0}),
    ("OVERPOWERED", {"d_loss_gradient": 0.19, "auc": 1.0}, {"d_loss_gradient": 0.19, "auc": 0.998}),
    ("COLLAPSED", {"diversity": 0.09}, {"diversity": 0.11}),
    ("OSCILLATING", {"step_cosine": -0.51}, {"step_cosine": -0.49}),
    ("DIVERGED", {"weight_norm_generator": 101.0}, {"weight_norm_generator": 99.0}),
    ("DIVERGED", {"weight_norm_discriminator": 101.0}, {"weight_norm_discriminator": 99.0}),
    ("DIVERGED", {"logits_rms": 1.01e4}, {"logits_rms": 0.99e4}),
    ("DIVERGED", {"feedback_norm": math.inf}, {}),
    ("UNFAITHFUL", {"pair_error": 2.01}, {"pair_error": 1.99}),
    ("MEMORIZING", {"overfitting": 0.51, "overfitting_sigmas": 4.1},
     {"overfitting": 0.49, "overfitting_sigmas": 4.1}),
    ("MEMORIZING", {"overfitting": 0.51, "overfitting_sigmas": 4.1},
     {"overfitting": 0.51, "overfitting_sigmas": 3.9}),
]  # fmt: skip


def measure(monitor, **changes):
    return monitor(HEALTHY | changes)


def holding(evaluation):
    return {name for name, result in evaluation.results.items() if result.holds}


@pytest.mark.parametrize(("name", "failing", "passing"), CASES)
def test_each_holds_beyond_its_threshold_and_alone(name, failing, passing):
    assert {case for case, _, _ in CASES} == set(CHECKS)
    monitor = Monitor(patience=3)
    assert holding(measure(monitor)) == set()
    evaluation = measure(monitor, **failing)
    assert holding(evaluation) == {name}
    assert holding(measure(monitor, **passing)) == set()
    result = evaluation.results[name]
    assert result.value in {*failing.values(), failing.get("weight_norm_generator", 0) / 10, 10.1}


@pytest.mark.parametrize("name", [name for name in CHECKS if name != "DIVERGED"])
def test_active_after_patience_once_and_cleared_after_as_many(name):
    failing = next(failing for which, failing, _ in CASES if which == name)
    monitor = Monitor(patience=3)
    measure(monitor)
    evaluations = [measure(monitor, **failing) for _ in range(5)] + [measure(monitor) for _ in range(4)]
    assert [one.activated for one in evaluations] == [[], [], [name], *[[]] * 6]
    assert [one.cleared for one in evaluations] == [*[[]] * 7, [name], []]
    assert [measure(monitor, **failing).activated for _ in range(3)] == [[], [], [name]], "and again"


def test_an_interruption_resets_the_streak():
    monitor = Monitor(patience=3)
    failing = {"diversity": 0.0}
    for changes in ({}, failing, failing, {}, failing, failing):
        assert measure(monitor, **changes).activated == []
    assert measure(monitor, **failing).activated == ["COLLAPSED"]
    for changes in ({}, {}, failing, {}, {}):
        assert measure(monitor, **changes).cleared == []
    assert measure(monitor).cleared == ["COLLAPSED"] and monitor.active == set()


def test_the_first_measurement_is_the_baseline():
    monitor = Monitor(patience=1)
    assert measure(monitor, feedback_norm=1e-6, weight_norm_generator=1e3, auc=0.9).activated == []
    assert measure(monitor, feedback_norm=1e-8, weight_norm_generator=1e3, auc=0.9).activated == []
    assert measure(monitor, feedback_norm=0.9e-9, weight_norm_generator=1e3, auc=0.9).activated == [
        "VANISHED"
    ]
    monitor = Monitor(patience=1)
    assert measure(monitor, feedback_norm=0.0, weight_norm_generator=0.0, auc=0.9).activated == []
    assert measure(monitor, feedback_norm=0.0, weight_norm_generator=5.0, auc=0.9).activated == [], (
        "a baseline of 0 has no ratio"
    )


def test_weights_are_compared_with_those_at_the_start():
    monitor = Monitor(patience=3, baseline={"weight_norm_generator": 0.9, "weight_norm_discriminator": 9.0})
    evaluation = measure(monitor)
    assert evaluation.activated == ["DIVERGED"]
    assert evaluation.results["DIVERGED"].value == pytest.approx(10 / 0.9)
    assert monitor.baseline == HEALTHY | {"weight_norm_generator": 0.9, "weight_norm_discriminator": 9.0}


def test_what_is_no_failure_or_one_at_once():
    assert measure(Monitor(patience=1), auc=1.0, d_loss_gradient=1.0).activated == [], "a Wasserstein critic"
    no_held_out = {key: value for key, value in HEALTHY.items() if not key.startswith("overfitting")}
    assert "MEMORIZING" not in Monitor()(no_held_out).results
    assert measure(Monitor(patience=3), g_loss_gradient=math.nan).activated == ["DIVERGED"]


def test_healthy_after_patience_measurements_without_any_state():
    monitor = Monitor(patience=2)
    healthy = []
    for changes in ({}, {}, {"d_loss_gradient": 0.1}, {"diversity": 0.0}, {}, {}):
        measure(monitor, **changes)
        healthy.append(monitor.healthy)
    assert healthy == [False, True, True, False, False, True]
    monitor.reset()
    assert not monitor.healthy and monitor.baseline == HEALTHY


def test_the_monitors_state_survives_json():
    changes = [
        {},
        {"step_cosine": -0.9},
        {"step_cosine": -0.9, "logits_rms": 2e4},
        {"step_cosine": -0.9},
    ]
    whole, cut = Monitor(patience=3), Monitor(patience=3)
    for one in changes[:3]:
        measure(whole, **one), measure(cut, **one)
    resumed = Monitor(patience=3)
    resumed.load_state_dict(json.loads(json.dumps(cut.state_dict())))
    assert measure(whole, **changes[3]) == measure(resumed, **changes[3])
    assert resumed == whole and whole.active == {"OSCILLATING"}, "and divergence has cleared at once, too"


@pytest.mark.parametrize(
    ("generator", "discriminator", "scaling"),
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
def test_the_network_that_drifted_more_is_slowed_by_the_ratio(generator, discriminator, scaling):
    assert rollback_scaling(generator_drift=generator, discriminator_drift=discriminator) == pytest.approx(
        scaling
    )


def test_scaling():
    both = Scaling(generator_lr=0.2) * Scaling(generator_lr=0.5, penalty=2.0)
    assert both == Scaling(0.1, 1.0, 2.0)
    assert str(both) == "the generator's learning rate x 0.1, penalty weights x 2"
    assert str(Scaling()) == "nothing"
