"""A generator that learns one real sample by maximum likelihood."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from litgan.penalties import Context
from litgan.reconstruction import Likelihood


def check_one_sample(generator: nn.Module, sample: Tensor, symbols: int) -> None:
    """Its loss falls from about that of equally likely symbols to nearly none, and it draws the sample.

    Symbols are along dimension `symbols` of the sample, one-hot; where none is 1, one that is not there is.
    """
    real = sample.expand(9, *sample.shape)
    term, adam, losses = Likelihood(), torch.optim.Adam(generator.parameters(), lr=1e-2), []
    for _ in range(60):
        adam.zero_grad()
        loss = term(Context(generator, None, real=real, fake=real))
        assert loss.shape == (9,)
        loss.mean().backward()
        adam.step()
        losses.append(loss.mean().item())
    assert losses[0] > 1.2 and losses[-1] < 0.1
    with torch.no_grad():
        fake = generator(torch.randn(50, generator.latent_dim))  # type: ignore[call-overload]
    assert (fake.round() == sample).all(1 + symbols).float().mean() > 0.9
