"""Data sets and the contract for new ones; see `GANDataModule`."""

from litgan.data.base import GANDataModule
from litgan.data.images import CIFAR10, MNIST, CelebA, Digits, FashionMNIST, ImageFolder
from litgan.data.music import Music
from litgan.data.rolls import PianoRolls, Scales
from litgan.data.sound import Sound
from litgan.data.text import Grammar, Text
from litgan.data.tones import Tones
from litgan.data.toy import Grid, Ring

__all__ = [
    "CIFAR10",
    "MNIST",
    "CelebA",
    "Digits",
    "FashionMNIST",
    "GANDataModule",
    "Grammar",
    "Grid",
    "ImageFolder",
    "Music",
    "PianoRolls",
    "Ring",
    "Scales",
    "Sound",
    "Text",
    "Tones",
]
