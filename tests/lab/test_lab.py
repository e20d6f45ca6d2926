"""The lab: transforms change only the gradient; experiments support or refute the claims."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from PIL import Image

from litgan import cli, lab
from litgan.lab import claims, claims_list
from litgan.lab.claims import FEEDBACK_CLAIMS, Claim, check_claims
from litgan.lab.experiments import Plan, feedback, loss_gradients
from litgan.lab.setups import RING, energy_distance
from litgan.lab.transforms import (
    BatchMean,
    Delayed,
    Identity,
    LastBlocks,
    Noised,
    Shuffled,
    ShuffledResidual,
    Sign,
    Zero,
    generator_blocks,
)
from litgan.losses import NonSaturating
from litgan.noise import Noise
from litgan.penalties import R1

NOISE = Noise(0, 0, 0, 64, "test")


def random_gradients():
    torch.manual_seed(0)
    return torch.randn(64, 3, 4)


def test_transforms_are_as_defined():
    gradients = random_gradients()
    assert torch.equal(Identity()(gradients, NOISE), gradients)
    assert not Zero()(gradients, NOISE).any()
    signs = Sign()(gradients, NOISE)
    assert torch.equal(signs.sign(), gradients.sign())
    torch.testing.assert_close(signs.abs().flatten(1).amax(1), gradients.abs().flatten(1).mean(1))
    shuffled = Shuffled()(gradients, NOISE)
    assert torch.equal(shuffled.sum(0), gradients.sum(0)) or torch.allclose(
        shuffled.sum(0), gradients.sum(0), atol=1e-5
    )
    assert not (shuffled == gradients).flatten(1).all(1).any()
    common, residual = BatchMean()(gradients, NOISE), ShuffledResidual()(gradients, NOISE)
    torch.testing.assert_close(common, gradients.mean(0).repeat(64, 1, 1))
    torch.testing.assert_close(common + residual, shuffled)
    assert residual.mean(0).abs().max() < 1e-6
    added = (Noised(2.0)(gradients, NOISE) - gradients).flatten(1)
    ratio = added.square().mean(1).sqrt() / gradients.flatten(1).square().mean(1).sqrt()
    assert 1.8 < ratio.mean() < 2.1
    assert torch.equal(Noised(2.0)(gradients, NOISE), Noised(2.0)(gradients, NOISE))


def test_the_identity_trains_like_a_plain_gan(tiny_gan, tiny_data, make_trainer):
    ours = RING.train(Identity(), iterations=5).gan
    adam = partial(torch.optim.Adam, lr=RING.lr, betas=RING.betas)
    plain = tiny_gan(
        generator=RING.networks[0], discriminator=RING.networks[1], generator_optimizer=adam,
        discriminator_optimizer=adam, penalties=[R1(RING.r1_weight, interval=2)], ema_halflife=5000,
    )  # fmt: skip
    make_trainer(5).fit(plain, datamodule=RING.data(0))
    theirs = plain.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


def test_zero_feedback_trains_only_the_discriminator():
    zero = RING.train(Zero(), iterations=20)
    assert zero.start == zero.end
    identity = RING.train(Identity(), iterations=0).gan
    moved = [
        not torch.equal(one, other)
        for one, other in zip(
            zero.gan.discriminator.parameters(), identity.discriminator.parameters(), strict=True
        )
    ]
    assert all(moved)


def test_a_delay_keeps_only_the_discriminators_it_needs():
    identity, same = (RING.train(one, iterations=6).gan.state_dict() for one in (Identity(), Delayed(0)))
    assert all(torch.allclose(value, same[name], atol=1e-6) for name, value in identity.items())
    late = Delayed(100)
    RING.train(late, iterations=6)
    assert len(late.history) == 6
    short = Delayed(2)
    RING.train(short, iterations=6)
    assert len(short.history) == 3


def test_only_the_last_block_learns():
    gan = RING.train(LastBlocks(1), iterations=5).gan
    fresh = RING.train(Identity(), iterations=0).gan
    blocks = zip(generator_blocks(gan.generator), generator_blocks(fresh.generator), strict=True)
    same = [torch.equal(one.weight, other.weight) for one, other in blocks]
    assert same == [True, True, False]


def test_the_energy_distance_of_two_shifted_points():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    assert energy_distance(real=points, fake=points).item() == 0.0  # 2 * 1 - 2 - 2, not below 0
    far = energy_distance(real=points, fake=points + 100.0)
    assert far.item() == pytest.approx(2 * torch.cdist(points, points + 100).mean().item() - 4.0)


def test_the_feedback_of_each_loss_scales_with_its_derivative():
    rows = loss_gradients(d_steps=(0, 20))
    for d_steps in (0, 20):
        passed = {row["loss"]: row["loss_derivative"] for row in rows if row["d_steps"] == d_steps}
        assert passed["Wasserstein"] == passed["Hinge"] == pytest.approx(1.0)
        assert 0 < passed["Minimax"] < 1 and 0 < passed["NonSaturating"] < 1
        assert passed["Minimax"] + passed["NonSaturating"] == pytest.approx(1.0, abs=0.02)  # s and 1 - s
    assert {type(NonSaturating()).__name__, "Relativistic"} <= {row["loss"] for row in rows}


@pytest.mark.train
def test_the_short_experiments_support_most_claims(tmp_path, capsys):
    """The short form, from the command line."""
    cli.main(["lab", "--short", "--out", str(tmp_path / "lab")])
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "lab" / "results.json").read_text())
    holds = {claim.statement: claim.holds for claim in check_claims(found)}
    assert {claim for claim in holds if not holds[claim]} <= OPEN
    assert len(holds.keys() - OPEN) >= 8
    assert (tmp_path / "lab" / "results.md").read_text() in said
    for claim, held in holds.items():
        assert f"- {'yes' if held else 'not decided at this length'}: {claim}" in said
    with Image.open(tmp_path / "lab" / "figure.png") as picture:
        assert picture.size == (1452, 836)


OPEN = {  # false, or undecided with two seeds and 250 iterations
    *(claim for claim in FEEDBACK_CLAIMS if claim.startswith(("The batch mean", "Training only"))),
    "R1 lowers the final distance, by more than two standard errors.",
}


def test_claims_can_fail():
    plan = Plan(
        ((RING, 1),), levels=(1.0,), delays=(1,), blocks=(1,), iterations=2
    )  # too few to learn anything
    rows = feedback(plan, lambda sentence: None)
    found = {"feedback": rows, "loss_gradients": LOSS_GRADIENTS, "penalties": PENALTIES, "dirac": DIRAC}
    holds = {claim.statement: claim.holds for claim in check_claims(found)}
    assert holds["Without feedback it does not learn."]
    assert not any(holds[claim] for claim in holds if claim.startswith(NOT_IN_TWO))


def test_short_runs_refute_no_claim_about_training():
    rows = [
        Claim("A.", True, "1.", trained=True),
        Claim("B.", False, "2.", trained=True),
        Claim("C.", False, "3."),
    ]
    beginnings = {True: ["yes", "not decided at this length", "**no**"], False: ["yes", "**no**", "**no**"]}
    for short, begins in beginnings.items():
        said = claims_list(rows, short).splitlines()
        assert [line.partition(":")[0] for line in said] == [f"- {begin}" for begin in begins]


NOT_IN_TWO = (
    "With its feedback", "With another", "The batch mean", "Training only", "The noisier", "The later",
    "Against", "R1", "Without a",
)  # fmt: skip


def test_an_amount_that_helps_fails_the_claim_and_one_within_the_error_does_not():
    def claim(*ends):
        rows = [
            {"setup": "ring", "transform": name, "amount": amount, "seed": seed, "start": 9.0, "end": end}
            for name, amount, pair in zip(("identity", "noise", "noise"), (0.0, 1.0, 2.0), ends, strict=True)
            for seed, end in enumerate(pair)
        ]
        return claims._on_amounts(rows, "ring", "noise", "noisier").holds

    assert claim((1.0, 1.2), (2.0, 2.2), (4.0, 4.2))
    assert claim((1.0, 1.2), (1.0, 1.1), (4.0, 4.2))
    assert not claim((1.0, 1.2), (6.0, 6.2), (4.0, 4.2))
    assert not claim((1.0, 1.2), (1.0, 1.2), (1.1, 1.3))


def test_the_table_shows_the_mean_and_its_error():
    rows = [
        {"setup": "ring", "transform": name, "amount": amount, "seed": seed, "start": 3.0, "end": end}
        for name, amount, pair in (("zero", 0.0, (3.0, 3.0)), ("noise", 4.0, (1.0, 2.0)))
        for seed, end in enumerate(pair)
    ]
    lines = lab.table(rows).splitlines()
    assert lines[0] == "| distance from the data | ring, 2 seeds |"
    assert lines[-1] == "| noise 4 | 1.5 +- 0.5 |"


LOSS_GRADIENTS = [
    {"loss": name, "d_steps": 0, "feedback": 1.0, "loss_derivative": 1.0, "logit_gap": 0.0}
    for name in ("Minimax", "NonSaturating")
]
PENALTIES = [{"penalty": name, "seed": 0, "end": 1.0, "rotation": 0.5} for name in ("none", "R1")]
DIRAC = [
    {"gamma": gamma, "update": kind, "real": 0.0, "imaginary": 0.5, "multiplier": 1.0, "amplitude_ratio": 1.5}
    for gamma in (0.0, 1.0)
    for kind in ("simultaneous", "alternating")
]
