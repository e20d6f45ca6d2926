"""From an image to an image: published networks and games. The core does not import this package."""

from litgan.translation.autoencoder import VQAutoencoder
from litgan.translation.cyclegan import CycleGAN
from litgan.translation.multi_scale import MultiScale
from litgan.translation.resnet import ResNetTranslator
from litgan.translation.super_resolution import SuperResolver

__all__ = ["CycleGAN", "MultiScale", "ResNetTranslator", "SuperResolver", "VQAutoencoder"]
