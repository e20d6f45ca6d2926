"""The recipes of music on a simulated device."""

from __future__ import annotations

from shared.simulation.recipes import Simulations


class TestSimulations(Simulations):
    folder = "music"
    stand_ins = {
        "litgan.music.Music": ["--data", "litgan.music.Scales", "--data.bars", "2"],
        "litgan.music.Scales": [],
    }
    launches = {
        "chorales_harmony": (3406, 6754),
        "chorales_likelihood": (3899, 7812),
        "chorales_phrases": (3916, 7861),
        "chorales_pianoroll": (468, 270),
        "scales": (384, 225),
    }
