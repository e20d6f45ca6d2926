"""Diagnosis: detects named failure states of GAN training. A wing: the core does not import it."""

from litgan.diagnosis.callback import Diagnosis

__all__ = ["Diagnosis"]
