"""The recipes of text."""

from __future__ import annotations

from shared.recipes import Recipes

from litgan import text


class TestRecipes(Recipes):
    folder = "text"
    stand_ins = {
        "litgan.text.Text": ["--data.path", __file__],
        "litgan.text.PieceText": ["--data.path", __file__, "--data.window_start", "words"],
        "litgan.text.Grammar": [],
    }
    rooms = (text,)
    texts = {"PieceText.path", "Text.path", "TextBatch.alphabet"}
