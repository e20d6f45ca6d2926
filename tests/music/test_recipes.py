"""The recipes of music."""

from __future__ import annotations

from shared.recipes import Recipes

from litgan import music


class TestRecipes(Recipes):
    folder = "music"
    stand_ins = {
        "litgan.music.Music": ["--data", "litgan.music.Scales", "--data.bars", "2"],
        "litgan.music.Scales": [],
    }
    rooms = (music,)
    texts = {"Music.root"}
