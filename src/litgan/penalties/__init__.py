"""What the adversaries minimise besides the game; see `Penalty` and `GeneratorPenalty`."""

from litgan.penalties.base import GeneratorPenalty, Penalty
from litgan.penalties.consistency import BalancedConsistency, LatentConsistency, LatentDiversity
from litgan.penalties.gradient import (
    DRAGAN,
    R1,
    R2,
    WGANGP,
    FiniteDifferenceR1,
    FiniteDifferenceR2,
    automatic_gamma,
)
from litgan.penalties.lecam import LeCam
from litgan.penalties.path_length import PathLength

__all__ = [
    "DRAGAN",
    "R1",
    "R2",
    "WGANGP",
    "BalancedConsistency",
    "FiniteDifferenceR1",
    "FiniteDifferenceR2",
    "GeneratorPenalty",
    "LatentConsistency",
    "LatentDiversity",
    "LeCam",
    "PathLength",
    "Penalty",
    "automatic_gamma",
]
