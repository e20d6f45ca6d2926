from __future__ import annotations

from functools import partial

import pytest
import torch
from shared.pairs import Pairs, game
from torch import nn

from litgan.callbacks import Realism
from litgan.metrics import evaluate


@pytest.mark.parametrize("raw", [False, True], ids=["averaged weights", "raw weights"])
def test_logs_what_evaluate_measures(raw, digits_gan, digits, make_trainer, memory):
    adam = partial(torch.optim.Adam, lr=0.05)  # the average lags behind visibly
    gan = digits_gan(generator_optimizer=adam, discriminator_optimizer=adam, ema_rampup=0)
    realism = Realism("digits", every=1000, count=40, raw=raw)
    make_trainer(3, callbacks=[realism], logger=memory).fit(gan, datamodule=digits)

    def measured(raw):
        def sample(first, count):
            return gan.sample(count, first=first, ema=not raw)

        return evaluate(sample, digits, "digits", count=40).values

    wanted, other = measured(raw), measured(not raw)
    assert {key: memory.values(key)[24] for key in wanted} == wanted
    assert wanted["metric/fd_digits"] != pytest.approx(other["metric/fd_digits"], rel=0.01)
    assert {"metric/kid", "metric/precision", "metric/recall"} <= wanted.keys()
    assert gan.logged["metric/fd_digits"] == wanted["metric/fd_digits"], "what the progress bar shows"
    protocol = memory.hyperparameters["protocol"]
    assert protocol["weights"] == ("raw" if raw else "ema")
    assert (protocol["real_count"], protocol["fake_count"], protocol["split"]) == (40, 40, "train")
    assert protocol["data"] == digits.fingerprint


def test_fakes_are_compared_with_all_reals(digits_gan, digits, make_trainer):
    realism = Realism("digits", every=0, count=10, real_count="all")
    make_trainer(1, callbacks=[realism]).validate(digits_gan(), datamodule=digits, verbose=False)
    assert realism.report is not None
    assert realism.report.protocol["real_count"] == digits.size() == 1797
    assert realism.report.protocol["fake_count"] == 10


@pytest.mark.parametrize(
    ("turns", "iterations", "clocks"), [(1, 9, [0, 24, 40, 64, 72]), (2, 5, [0, 32, 48, 64, 80])]
)
def test_measures_before_the_first_step_at_the_cadence_and_at_the_end(
    turns, iterations, clocks, digits_gan, digits, make_trainer, memory
):
    gan = digits_gan(discriminator_steps=turns)
    trainer = make_trainer(iterations, callbacks=[Realism("digits", every=20, count=10)], logger=memory)
    trainer.fit(gan, datamodule=digits)
    assert list(memory.values("metric/fd_digits")) == clocks
    assert not any("extractor" in key for key in gan.state_dict()), "no part of the GAN"


def test_validation_measures_too(digits_gan, digits, make_trainer):
    realism = Realism("digits", every=0, count=10)
    found = make_trainer(1, callbacks=[realism]).validate(digits_gan(), datamodule=digits, verbose=False)
    assert realism.report is not None
    assert found[0]["metric/fd_digits"] == pytest.approx(realism.report.values["metric/fd_digits"])
    assert "logits/real" in found[0]


def test_further_metrics_of_pairs_are_logged(tiny_gan, make_trainer):
    class Gap(nn.Module):
        name = "gap"

        def forward(self, *, real, fake):
            return (real - fake).abs().flatten(1).mean(1)

    realism = Realism("digits", every=8, count=40, split="test", pair_metrics=Gap())
    make_trainer(1, callbacks=[realism]).fit(tiny_gan(**game()), datamodule=Pairs())
    values = realism.report.values
    assert values["metric/gap"] == pytest.approx(values["metric/l1"], rel=1e-6)
