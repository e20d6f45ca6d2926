"""One-stage updates and the zoo's penalties with compiled networks."""

from __future__ import annotations

import pytest
from shared.compiling import check_few_graphs, pairs, without_inductor

from litgan.penalties import R1, R2, WGANGP
from litgan.zoo import LatentConsistency, OneStageGAN, PathLength

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("error:.*training goes on uncompiled")]

GAMES = {
    "one stage": {"kind": OneStageGAN, "penalties": [R1(0.5, interval=2)]},
    "one stage, WGAN-GP": {"kind": OneStageGAN, "penalties": [WGANGP(interval=2)]},
    "one stage, R2": {"kind": OneStageGAN, "penalties": [R2(0.1, interval=2)], "micro_batches": 2},
    "one stage, 2 discriminator steps": {
        "kind": OneStageGAN, "discriminator_steps": 2, "penalties": [R1(0.5, interval=3)]
    },
    "penalties of the generator": {
        "penalties": [LatentConsistency(0.1, interval=2)],
        "generator_penalties": [PathLength(0.1, interval=2)],
    },
}  # fmt: skip


@pytest.mark.parametrize("game", GAMES)
def test_compiled_networks_learn_the_same_in_few_graphs(game, tiny_gan, tiny_data, make_trainer, monkeypatch):
    without_inductor(monkeypatch)
    check_few_graphs(pairs(tiny_gan, tiny_data, make_trainer), GAMES[game], tiny_gan)
