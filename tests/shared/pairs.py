"""A small game of pairs: images made from their own negatives, a translator and a critic of both."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from litgan.data import GANDataModule
from litgan.noise import torch_generator
from litgan.penalties import R1
from litgan.render import ImageBatch

IMAGES = torch.randint(0, 256, (40, 1, 8, 8), generator=torch_generator("pairs")).to(torch.uint8)


class Files:
    """The images, or what becomes of them, read one at a time."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.fingerprint = images, f"{int(images.sum())}"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].clone()


class Pairs(GANDataModule):
    """Images whose condition is their negative: as files, as tensors, or made of each batch of samples."""

    splits = ("train", "test")

    def __init__(self, *, negative: bool = True, made: bool = False, **common: Any) -> None:
        super().__init__((1, 8, 8), **({"batch_size": 8} | common))
        self.condition, self.negative, self.made = (1, 8, 8), negative, made

    def read(self, split: str) -> Any:
        images = IMAGES if split == "train" else IMAGES[:12].flip(2)
        conditions = 255 - images if self.negative else images.clone()
        if self.memory == "disk":
            return Files(images), Files(conditions)
        return images, images if self.made else conditions

    def encode_condition(self, stored: Tensor) -> Tensor:
        return -self.encode(stored) if self.made else super().encode_condition(stored)

    def decode(self, samples: Tensor) -> ImageBatch:
        return ImageBatch.from_unit_range(samples)

    def read_condition(self, path: str | Path) -> Tensor:
        try:
            return self.encode(torch.from_numpy(np.array(Image.open(path).convert("L")))[None])
        except OSError as error:
            raise ValueError(f"{path} is no picture: give a PNG.") from error


class Flipped(Pairs):
    """Mirrored at random."""

    flip = True


class Critic(nn.Module):
    """Of a sample beside its condition."""

    def __init__(self, sample_shape: tuple[int, ...], condition: tuple[int, ...]) -> None:
        super().__init__()
        channels = sample_shape[0] + condition[0]
        self.first, self.head = nn.Conv2d(channels, 8, 3, 2, 1), nn.Conv2d(8, 1, 3, 2, 1)

    def features(self, samples: Tensor, condition: Tensor) -> list[Tensor]:
        return [nn.functional.silu(self.first(torch.cat([samples, condition], 1)))]

    def forward(self, samples: Tensor, condition: Tensor) -> Tensor:
        return self.head(self.features(samples, condition)[-1]).flatten(1)


def translator() -> nn.Module:
    """One argument, the condition: no latents."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.SiLU(), nn.Conv2d(8, 1, 3, 1, 1), nn.Tanh())


def game(**options: Any) -> dict[str, Any]:
    """Options of a GAN that translates."""
    adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.5, 0.99))
    defaults = {
        "generator": translator(), "discriminator": Critic, "sample_shape": (1, 8, 8),
        "condition": (1, 8, 8), "penalties": [R1(0.1, interval=2)],
        "generator_optimizer": adam, "discriminator_optimizer": adam,
    }  # fmt: skip
    return defaults | options


class Translator(nn.Module):
    """As a recipe names it."""

    latent_dim = 0

    def __init__(self, sample_shape: tuple[int, ...], condition: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(condition[0], 8, 3, 1, 1), nn.SiLU(), nn.Conv2d(8, sample_shape[0], 3, 1, 1), nn.Tanh()
        )

    @property
    def last_layer(self) -> Tensor:
        return self.layers[-2].weight

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        return self.layers(condition)
