"""The recipes of translation."""

from __future__ import annotations

from shared.recipes import Recipes

from litgan import translation


class TestRecipes(Recipes):
    folder = "translation"
    rooms = (translation,)
    texts = {f"CycleGAN.{option}" for option in ("compile", "freeze", "gradient_clip_val", "reconstruction")}
