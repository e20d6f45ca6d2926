"""A run with the zoo's penalties that is cut and resumed is the run that was never cut, bit for bit."""

from __future__ import annotations

import pytest
from shared.resuming import check_six_are_three_and_three, player

from litgan.zoo import LatentConsistency, LatentDiversity, PathLength

CASES = {
    "a penalty that remembers": {"generator_penalties": [PathLength(0.1, 2)]},
    "penalties with neighbours": {
        "penalties": [LatentConsistency(0.1)],
        "generator_penalties": [LatentDiversity(0.1)],
    },
}


@pytest.mark.parametrize("case", CASES)
def test_six_iterations_are_three_and_three(case, tiny_gan, tiny_data, make_trainer, tmp_path):
    check_six_are_three_and_three(player(tiny_gan, tiny_data, make_trainer), CASES[case], {}, tmp_path)
