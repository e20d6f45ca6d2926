"""The recipes of the zoo, and its overlay."""

from __future__ import annotations

from shared.recipes import Overlays, Recipes

from litgan import zoo


class TestRecipes(Recipes):
    folder = "zoo"
    rooms = (zoo,)
    texts = {"ProjectedDiscriminator.backbone", "OneStageGAN.compile", "OneStageGAN.gradient_clip_val"}


class TestOverlays(Overlays):
    folder = "zoo"
