"""The recipes of text on a simulated device."""

from __future__ import annotations

from shared.simulation.recipes import Simulations


class TestSimulations(Simulations):
    folder = "text"
    stand_ins = {
        "litgan.text.Text": ["--data.path", __file__],
        "litgan.text.PieceText": ["--data.path", __file__, "--data.window_start", "words"],
        "litgan.text.Grammar": [],
    }
    launches = {
        "grammar": (1695, 1491),
        "scripture_likelihood": (786, 1794),
        "scripture_lines": (1261, 2729),
        "scripture_text": (1499, 1306),
    }
