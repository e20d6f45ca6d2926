"""What tests of penalties share: critics and generators whose closed forms are known, and a call."""

from __future__ import annotations

import math

import torch
from torch import nn

from litgan.noise import Noise
from litgan.penalties import Context


class Slope(nn.Module):
    """D(x) = <w, x> in two logits whose mean it is."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, math.prod(shape)).view(shape).double())

    def forward(self, samples, labels=None):
        logits = (self.weight * samples).flatten(1).sum(1)
        return torch.stack([3 * logits, -logits], 1)


class LinearGenerator(nn.Module):
    """G(z) = A z."""

    def __init__(self, inputs: int, *shape: int) -> None:
        super().__init__()
        self.shape, self.latent_dim = shape, inputs
        self.matrix = nn.Parameter(torch.randn(math.prod(shape), inputs, dtype=torch.float64))

    def forward(self, latents, labels=None):
        return (latents.double() @ self.matrix.T).view(-1, *self.shape)


def noise(count: int, name: str = "test") -> Noise:
    return Noise(0, 0, 0, count, name)


def call(penalty, discriminator, *, real, fake, generator=None, **more):
    logits = {"real_logits": discriminator(real), "fake_logits": discriminator(fake)}
    more = {"noise": noise(len(real))} | more
    return penalty(Context(generator, discriminator, real=real, fake=fake, **logits, **more))
