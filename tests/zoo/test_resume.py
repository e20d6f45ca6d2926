"""A run of the zoo that is cut and resumed is the run that was never cut, bit for bit."""

from __future__ import annotations

import pytest
from shared.resuming import check_six_are_three_and_three, player

from litgan.penalties import R1
from litgan.zoo import LatentConsistency, LatentDiversity, OneStageGAN, PathLength

CASES = {
    "one stage": {
        "kind": OneStageGAN, "penalties": [R1(0.1, interval=2)], "discriminator_steps": 2, "micro_batches": 2
    },
    "a penalty that remembers": {"generator_penalties": [PathLength(0.1, 2)]},
    "penalties with perturbed latents": {
        "penalties": [LatentConsistency(0.1)],
        "generator_penalties": [LatentDiversity(0.1)],
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_six_iterations_are_three_and_three(case, tiny_gan, tiny_data, make_trainer, tmp_path):
    check_six_are_three_and_three(player(tiny_gan, tiny_data, make_trainer), CASES[case], {}, tmp_path)
