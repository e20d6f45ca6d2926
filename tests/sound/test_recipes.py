"""The recipes of sound."""

from __future__ import annotations

from shared.recipes import Recipes

from litgan import sound


class TestRecipes(Recipes):
    folder = "sound"
    stand_ins = {"litgan.sound.Sound": ["--data", "litgan.sound.Tones"], "litgan.sound.Tones": []}
    rooms = (sound,)
    texts = {"Sound.root", "Clap.weights"}
