"""Generators and discriminators, one architecture a file.

A recipe gives the keyword options; the data gives `sample_shape` and `num_classes`. `mixes_samples`
says whether the samples of a training batch influence each other.
"""

from litgan.networks.causal import CausalTextDiscriminator
from litgan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from litgan.networks.mlp import MLPDiscriminator, MLPGenerator
from litgan.networks.pianoroll import PianoRollDiscriminator, PianoRollGenerator
from litgan.networks.projected import ProjectedDiscriminator
from litgan.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from litgan.networks.recurrent import RecurrentTextGenerator
from litgan.networks.resnet import ResNetDiscriminator, ResNetGenerator
from litgan.networks.stylegan2 import StyleGAN2Discriminator, StyleGAN2Generator
from litgan.networks.text import TextDiscriminator, TextGenerator
from litgan.networks.waveform import HiFiGANDiscriminator, WaveGANDiscriminator, WaveGANGenerator

__all__ = [
    "CausalTextDiscriminator",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "HiFiGANDiscriminator",
    "MLPDiscriminator",
    "MLPGenerator",
    "PianoRollDiscriminator",
    "PianoRollGenerator",
    "ProjectedDiscriminator",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "RecurrentTextGenerator",
    "ResNetDiscriminator",
    "ResNetGenerator",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "TextDiscriminator",
    "TextGenerator",
    "WaveGANDiscriminator",
    "WaveGANGenerator",
]
