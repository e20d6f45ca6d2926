"""Data sets and the contract for new ones; see `GANDataModule`."""

from litgan.data.base import GANDataModule
from litgan.data.derived import Derived, Downsample, Edges, Grayscale, Identity, Transform, Unpaired
from litgan.data.images import CIFAR10, MNIST, CelebA, Digits, FashionMNIST, ImageFolder
from litgan.data.paired import PairedFolder
from litgan.data.streaming import ArrowImages, ShardImages
from litgan.data.subset import Subset
from litgan.data.toy import Grid, Ring

__all__ = [
    "CIFAR10",
    "MNIST",
    "ArrowImages",
    "CelebA",
    "Derived",
    "Digits",
    "Downsample",
    "Edges",
    "FashionMNIST",
    "GANDataModule",
    "Grayscale",
    "Grid",
    "Identity",
    "ImageFolder",
    "PairedFolder",
    "Ring",
    "ShardImages",
    "Subset",
    "Transform",
    "Unpaired",
]
