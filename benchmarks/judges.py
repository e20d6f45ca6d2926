"""Extractors that judge recipes from an input: no recipe has them in a term of its loss or chooses by them.

A wing's judge is in benchmarks/<wing>/judges.py. Each is a classifier that is trained once, in minutes, and
then read from benchmarks/results/judges.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_extractors import fit, labelled, shifted

from litgan.data import FashionMNIST
from litgan.metrics import FeatureExtractor
from litgan.noise import torch_generator

STORED = Path(__file__).parent / "results" / "judges"
WIDTHS = (32, 64, 96)  # channels at a half, a quarter and an eighth of the side


class ResidualBlock(nn.Module):
    """Maps [B, inputs, H, W] to [B, outputs, H / 2, W / 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2)
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return F.silu(self.layers(maps) + self.shortcut(maps))


def trunk() -> nn.Sequential:
    """Maps [B, 1, H, W] to features [B, 96]: strided residual blocks."""
    first = nn.Conv2d(1, WIDTHS[0], 5, stride=2, padding=2)
    blocks = [ResidualBlock(*pair) for pair in pairwise(WIDTHS)]
    return nn.Sequential(first, nn.SiLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())


class GarmentJudge(FeatureExtractor):
    """Another network than `litgan.metrics.Classifier`, trained to name Fashion-MNIST's garments."""

    name, dimension = "judge", WIDTHS[-1]

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = trunk(), nn.Linear(WIDTHS[-1], 10)
        self.finalize()

    def features(self, samples: Tensor) -> Tensor:
        return self.trunk(samples)


def known(judge: FeatureExtractor, path: Path, learn: Callable[[nn.Sequential], Any]) -> FeatureExtractor:
    """The judge with the weights at `path`, or with those that `learn` gives to its trunk and head."""
    if path.is_file():
        judge.load_state_dict(load_file(path))
    else:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            learn(nn.Sequential(judge.trunk, judge.head).requires_grad_(True))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(judge.state_dict(), path)
    judge.finalize()
    return judge


def judge(data: Any) -> FeatureExtractor:
    """Of pictures of garments."""

    def learn(network: nn.Sequential) -> None:
        (samples, labels), _ = labelled(FashionMNIST())
        generator = torch_generator("judge", "fashion")
        vary = lambda batch: shifted(batch, 2, generator)  # noqa: E731
        fit(network, samples, labels, 3, 128, 3e-3, vary, generator)

    torch.manual_seed(0)
    return known(GarmentJudge(), STORED / "fashion.safetensors", learn)


def resized(condition: Tensor, data: Any) -> Tensor:
    """The input itself, in the samples' size by bicubic interpolation."""
    size = data.sample_shape[1:]
    return F.interpolate(condition, size, mode="bicubic", align_corners=False).clamp(-1, 1)


OPPONENT = resized
