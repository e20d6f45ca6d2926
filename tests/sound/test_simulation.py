"""The recipes of sound on a simulated device."""

from __future__ import annotations

from shared.simulation.recipes import Simulations

NINE_TONES = [  # as many as there are classes of drums
    "--data", "litgan.sound.Tones", "--data.frequencies", str([200.0 + 50 * index for index in range(9)]),
]  # fmt: skip


class TestSimulations(Simulations):
    folder = "sound"
    stand_ins = {"litgan.sound.Sound": NINE_TONES, "litgan.sound.Tones": []}
    launches = {
        "drums_codec": (1278, 1770),
        "drums_istft": (2831, 1590),
        "drums_stereo": (4532, 2601),
        "drums_vocoder": (787, 1304),
        "drums_wavegan": (588, 379),
        "ljspeech_hifigan": (8808, 8031),
        "tones": (350, 198),
        "tones_codec": (1553, 1229),
    }
