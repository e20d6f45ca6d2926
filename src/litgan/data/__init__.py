"""Data sets and the contract for new ones; see `GANDataModule`."""

from litgan.data.base import GANDataModule
from litgan.data.images import CIFAR10, MNIST, CelebA, Digits, FashionMNIST, ImageFolder
from litgan.data.toy import Grid, Ring

__all__ = [
    "CIFAR10",
    "MNIST",
    "CelebA",
    "Digits",
    "FashionMNIST",
    "GANDataModule",
    "Grid",
    "ImageFolder",
    "Ring",
]
