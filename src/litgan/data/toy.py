"""Mixtures of Gaussians on the plane: data whose truth is known, so that dropped modes can be counted.

The ring of 8 and the grid of 25 are those of Metz et al. 2017, "Unrolled Generative Adversarial
Networks", section 3.1, and Dumoulin et al. 2017, "Adversarially Learned Inference", scaled to lie
well within [-1, 1].
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from litgan.data.base import GANDataModule
from litgan.data.checks import check_num_classes
from litgan.noise import torch_generator
from litgan.render import PointBatch


class GaussianMixture(GANDataModule):
    """Equal isotropic Gaussians; the same samples whatever the run's seed, as if they lay on disk.

    Args:
        centers: of the modes, float32 [modes, 2].
        std: standard deviation of each mode, per axis.
        samples: size of each split; modes take turns, so that each holds its share to within one.
    """

    splits: tuple[str, ...] = ("train", "test")

    def __init__(self, centers: Tensor, std: float, samples: int, **common: Any) -> None:
        super().__init__((2,), **common)
        check_num_classes(type(self).__name__, self.num_classes, len(centers))
        self.centers, self.std, self.samples = centers, std, samples

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        labels = torch.arange(self.samples) % len(self.centers)
        noise = torch.randn(self.samples, 2, generator=torch_generator(type(self).__name__, split))
        return self.centers[labels] + self.std * noise, labels

    def decode(self, samples: Tensor) -> PointBatch:
        return PointBatch(samples, limit=1.0)


class Ring(GaussianMixture):
    """Gaussians evenly spaced on a circle; label = mode, counter-clockwise from (radius, 0).

    Args:
        modes: number of Gaussians.
        radius: of the circle that their centers lie on.
        std: standard deviation of each mode, per axis.
        samples: size of each split.
        common: the options of `GANDataModule`; `num_classes` is 0 or `modes`.
    """

    def __init__(
        self, modes: int = 8, radius: float = 0.75, std: float = 0.02, samples: int = 50_000, **common: Any
    ) -> None:
        angles = 2 * math.pi * torch.arange(modes) / modes
        centers = radius * torch.stack((angles.cos(), angles.sin()), dim=1)
        super().__init__(centers, std, samples, **common)


class Grid(GaussianMixture):
    """Gaussians on a square grid; label = mode, row by row from the lower left.

    Args:
        side: modes a side.
        extent: coordinate of the outermost modes; the grid spans [-extent, extent] on each axis.
        std: standard deviation of each mode, per axis.
        samples: size of each split.
        common: the options of `GANDataModule`; `num_classes` is 0 or `side` squared.
    """

    def __init__(
        self, side: int = 5, extent: float = 0.8, std: float = 0.02, samples: int = 50_000, **common: Any
    ) -> None:
        axis = torch.linspace(-extent, extent, side)
        centers = torch.cartesian_prod(axis, axis).flip(1)
        super().__init__(centers, std, samples, **common)


def mode_report(points: Tensor, centers: Tensor, std: float) -> tuple[int, float]:
    """How much of a mixture a generator has learned, from its samples.

    A sample is good if it lies within 3 standard deviations of its nearest center (98.9 % of a perfect
    generator's are). A mode is covered if its good samples are at least a tenth of its fair share, N / modes.
    Srivastava et al. 2017 ("VEEGAN", section 4.1) ask for a single one, which a generator that only passes
    a mode on its way has, too.

    Args:
        points: samples, [N, 2].
        centers: of the modes, [modes, 2].
        std: of each mode, per axis.

    Returns:
        The number of modes covered and the share of samples that are good, in [0, 1].
    """
    distance, nearest = torch.cdist(points.cpu().double(), centers.cpu().double()).min(dim=1)
    good = distance <= 3 * std
    counts = nearest[good].bincount(minlength=len(centers))
    covered = counts >= max(1.0, 0.1 * len(points) / len(centers))
    return int(covered.sum()), good.double().mean().item()
