"""The recipes of translation."""

from __future__ import annotations

from shared.recipes import Recipes

from litgan import translation


class TestRecipes(Recipes):
    folder = "translation"
    stand_ins = {"litgan.data.Digits": []}
    rooms = (translation,)
