"""Generators and discriminators, one architecture a file.

A recipe gives the keyword options; the data gives `sample_shape` and `num_classes` or `condition`. With
`uses_batch_statistics` the output for a sample depends on the other samples of the training batch. All raise
ValueError, one sentence, if their options do not fit the shape, and in `forward` if the input does not.
"""

from litgan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from litgan.networks.mlp import MLPDiscriminator, MLPGenerator
from litgan.networks.quantizers import FiniteScalarQuantizer, Quantizer, VectorQuantizer
from litgan.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from litgan.networks.unet import PatchDiscriminator, UNetGenerator

__all__ = [
    "DCGANDiscriminator",
    "DCGANGenerator",
    "FiniteScalarQuantizer",
    "MLPDiscriminator",
    "MLPGenerator",
    "PatchDiscriminator",
    "Quantizer",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "UNetGenerator",
    "VectorQuantizer",
]
