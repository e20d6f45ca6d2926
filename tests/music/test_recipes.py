"""The recipes of music."""

from __future__ import annotations

from shared.recipes import Recipes

from litgan import music


class TestRecipes(Recipes):
    folder = "music"
    stand_ins = {"litgan.music.Music": ["--data", "litgan.music.Scales"], "litgan.music.Scales": []}
    rooms = (music,)
    texts = {"Music.root"}
