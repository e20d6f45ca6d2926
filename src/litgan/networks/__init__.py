"""Generators and discriminators, one architecture a file.

A recipe gives the keyword options; the data gives `sample_shape` and `num_classes`. `mixes_samples`
says whether the samples of a training batch influence each other.
"""

from litgan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from litgan.networks.mlp import MLPDiscriminator, MLPGenerator
from litgan.networks.resnet import ResNetDiscriminator, ResNetGenerator

__all__ = [
    "DCGANDiscriminator",
    "DCGANGenerator",
    "MLPDiscriminator",
    "MLPGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
]
