"""Diagnosis: named states of a failing game, found while it trains. A wing: the core does not import it."""

from litgan.diagnosis.callback import Diagnosis

__all__ = ["Diagnosis"]
