"""Published variants, each tested against its authors' code. A wing: the core does not import it."""

from litgan.zoo.ada import ADA
from litgan.zoo.consistency import BalancedConsistency, LatentConsistency, LatentDiversity
from litgan.zoo.one_stage import OneStageGAN
from litgan.zoo.path_length import PathLength
from litgan.zoo.projected import ProjectedDiscriminator
from litgan.zoo.resnet import ResNetDiscriminator, ResNetGenerator
from litgan.zoo.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator

__all__ = [
    "ADA",
    "BalancedConsistency",
    "LatentConsistency",
    "LatentDiversity",
    "OneStageGAN",
    "PathLength",
    "ProjectedDiscriminator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
]
