"""Published variants, each tested against its authors' code: a wing, which the core does not import."""

from litgan.zoo.consistency import BalancedConsistency, LatentConsistency, LatentDiversity
from litgan.zoo.one_stage import OneStageGAN
from litgan.zoo.path_length import PathLength

__all__ = ["BalancedConsistency", "LatentConsistency", "LatentDiversity", "OneStageGAN", "PathLength"]
