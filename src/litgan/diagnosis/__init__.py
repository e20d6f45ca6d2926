"""Diagnosis: named states of a failing game, found while it trains. A wing: the core does not import it."""

from litgan.diagnosis.health import Health

__all__ = ["Health"]
