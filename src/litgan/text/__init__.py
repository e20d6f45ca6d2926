"""Text: data, networks, metrics and rendering. A wing: the core does not import it."""

from litgan.text.causal import CausalTextDiscriminator
from litgan.text.data import Grammar, Text
from litgan.text.metrics import TextStatistics
from litgan.text.pieces import PieceText
from litgan.text.recurrent import RecurrentTextGenerator
from litgan.text.render import TextBatch

__all__ = [
    "CausalTextDiscriminator",
    "Grammar",
    "PieceText",
    "RecurrentTextGenerator",
    "Text",
    "TextBatch",
    "TextStatistics",
]
