"""The recipes of sound on a simulated device."""

from __future__ import annotations

from shared.simulation.recipes import Simulations


class TestSimulations(Simulations):
    folder = "sound"
    stand_ins = {"litgan.sound.Sound": ["--data", "litgan.sound.Tones"], "litgan.sound.Tones": []}
    launches = {
        "drums_codec": (1986, 1662),
        "drums_vocoder": (1349, 1087),
        "drums_wavegan": (588, 379),
        "ljspeech_hifigan": (8808, 8031),
        "tones": (350, 198),
        "tones_codec": (1553, 1229),
    }
