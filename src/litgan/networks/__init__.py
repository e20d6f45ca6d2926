"""Generators and discriminators, one architecture a file.

A recipe gives the keyword options; the data gives `sample_shape` and `num_classes`. `mixes_samples`
says whether the samples of a training batch influence each other.
"""

from litgan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from litgan.networks.mlp import MLPDiscriminator, MLPGenerator
from litgan.networks.r3gan import R3GANDiscriminator, R3GANGenerator

__all__ = [
    "DCGANDiscriminator",
    "DCGANGenerator",
    "MLPDiscriminator",
    "MLPGenerator",
    "R3GANDiscriminator",
    "R3GANGenerator",
]
