"""Mistakes that the simulation must notice, as penalties of the discriminator."""

from __future__ import annotations

import torch
from torch import Tensor

from litgan.penalties import Context, Penalty


class Waiting(Penalty):
    name = "waiting"

    def __call__(self, context: Context) -> Tensor:
        return context.real.mean(1) * context.real.sum().item()


class Copying(Penalty):
    name = "copying"

    def __call__(self, context: Context) -> Tensor:
        return context.real @ torch.ones(2).to(context.real.device)


class Choosing(Penalty):
    """The number of rows depends on values."""

    name = "choosing"

    def __call__(self, context: Context) -> Tensor:
        return context.real[context.real[:, 0] > 0].sum(1)


class Float64(Penalty):
    name = "float64"

    def __call__(self, context: Context) -> Tensor:
        return context.real.double().sum(1).float()


class WithoutMetal(Penalty):
    name = "without_metal"

    def __call__(self, context: Context) -> Tensor:
        return torch.special.ndtri(context.real.sigmoid()).sum(1)


class Small(Penalty):
    """Many operations."""

    name = "small"

    def __call__(self, context: Context) -> Tensor:
        total = context.real[:, 0]
        for _ in range(200):
            total = total + 1
        return total


class Mixing(Penalty):
    name = "mixing"

    def __call__(self, context: Context) -> Tensor:
        return (context.real + torch.ones(len(context.real), 1)).sum(1)
