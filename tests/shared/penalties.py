"""What tests of penalties share: critics and generators whose closed forms are known, and a call."""

from __future__ import annotations

import math

import torch
from torch import nn

from litgan.noise import Noise
from litgan.penalties import Context


class Linear(nn.Module):
    """D(x) = <w, x> in two logits whose mean it is."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1.5, math.prod(shape)).view(shape).double())

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


def noise(count: int, first: int = 0) -> Noise:
    return Noise(0, 0, first, count, "test")


def samples(*shape: int, count: int = 6) -> dict[str, torch.Tensor]:
    """Real and fake ones [count, *shape] in double precision."""
    torch.manual_seed(0)
    return {side: torch.randn(count, *shape, dtype=torch.float64) for side in ("real", "fake")}


def call(penalty, discriminator, *, real, fake, labels=None, generator=None, **more):
    """What the update does: grad on what the penalty differentiates, one pass, the penalty."""
    real, fake = (
        each.detach().requires_grad_(side in penalty.differentiates)
        for side, each in (("real", real), ("fake", fake))
    )
    logits = {"real_logits": discriminator(real, labels), "fake_logits": discriminator(fake, labels)}
    more = {"noise": noise(len(real))} | more
    return penalty(Context(generator, discriminator, labels, real=real, fake=fake, **logits, **more))
