"""Images that cost nothing to get, where only their number and shape matter."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from litgan.data.images import ImageData
from litgan.noise import torch_generator


class Synthetic(ImageData):
    """Uniform noise, uint8; with `num_classes`, of all classes in turn.

    Args:
        resolution: side in pixels.
        channels: 1 or 3.
        samples: size of the only split.
        common: `flip` and the options of `GANDataModule`.
    """

    def __init__(self, resolution: int = 32, channels: int = 3, samples: int = 256, **common: Any) -> None:
        super().__init__(resolution, channels, **common)
        self.samples = samples

    def read(self, split: str) -> tuple[Tensor, Tensor | None]:
        shape, generator = (self.samples, *self.sample_shape), torch_generator("Synthetic")
        labels = torch.arange(self.samples) % self.num_classes if self.num_classes else None
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), labels
