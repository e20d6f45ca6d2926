"""A judge that no recipe was tuned on: how well a classifier tells real samples from generated ones.

The classifier two-sample test of Lopez-Paz & Oquab 2017: fitted on half of both, its accuracy on the other
half. 0.5 is perfect: nothing was found that sets them apart.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.noise import torch_generator

BATCH = 64


class Classifier(nn.Module):
    """Three strided convolutions, then the mean and the maximum over all places: [B, C, *places] to [B]."""

    def __init__(self, channels: int, dimensions: int, width: int = 32) -> None:
        super().__init__()
        conv = {1: nn.Conv1d, 2: nn.Conv2d}[dimensions]
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dimensions]
        kernel = 9 if dimensions == 1 else 5
        layers: list[nn.Module] = []
        for index in range(3):
            inputs = width if index else channels
            layers += [conv(inputs, width, kernel, 2, kernel // 2), norm(width), nn.ReLU()]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(2 * width, 1)

    def forward(self, samples: Tensor) -> Tensor:
        places = self.layers(samples).flatten(2)
        pooled = torch.cat([places.mean(2), places.amax(2)], 1)
        return self.head(F.dropout(pooled, 0.3, self.training)).squeeze(1)


def accuracy(*, real: Tensor, fake: Tensor, iterations: int = 400, seed: int = 0) -> float:
    """Accuracy on the second half of both, [N, C, length] or [N, C, height, width], N at least 4.

    Its standard error is at most 0.5 / sqrt(N).
    """
    half = min(len(real), len(fake)) // 2
    torch.manual_seed(seed)
    model = Classifier(real.shape[1], real.ndim - 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    generator = torch_generator("two samples", seed)
    samples = torch.cat([real[:half], fake[:half]])
    targets = torch.arange(2 * half).lt(half).float()
    for _ in range(iterations):
        chosen = torch.randint(2 * half, (BATCH,), generator=generator)
        loss = F.binary_cross_entropy_with_logits(model(samples[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        found = [
            torch.cat([model(part) for part in side[half : 2 * half].split(250)]) for side in (real, fake)
        ]
    return (((found[0] > 0).sum() + (found[1] <= 0).sum()) / (2 * half)).item()
