"""The recipes of sound."""

from __future__ import annotations

from shared.recipes import Recipes

from litgan import sound

NINE_TONES = [  # as many as there are classes of drums
    "--data", "litgan.sound.Tones", "--data.frequencies", str([200.0 + 50 * index for index in range(9)]),
]  # fmt: skip


class TestRecipes(Recipes):
    folder = "sound"
    stand_ins = {"litgan.sound.Sound": NINE_TONES, "litgan.sound.Tones": []}
    rooms = (sound,)
    texts = {"Sound.root", "Clap.weights", "SoundAugment.policy"}
