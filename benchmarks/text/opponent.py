"""What a GAN of text has to beat: a model without a network, and one that predicts the next token.

`opponents` gives their samples, [count, *sample_shape] as the discriminator sees them.
"""

from __future__ import annotations

from collections.abc import Iterator

import next_symbol
import torch
from torch import Tensor

from litgan.noise import torch_generator
from litgan.text.data import CharacterData

MAX_COUNTS = 1 << 24  # of a Markov chain


def order_of_chain(data: CharacterData) -> int:
    """3 for letters; less where so many counts would be too many, such as 1 for a thousand pieces."""
    return max(
        order for order in (1, 2, 3) if order == 1 or data.sample_shape[0] ** (order + 1) <= MAX_COUNTS
    )


def markov_chain(data: CharacterData, count: int, seed: int, order: int = 3) -> Tensor:
    """Each token drawn with the probabilities that it has in training windows after the last `order`.

    The first ones are those of a window chosen at random.
    """
    windows, (size, length) = torch.as_tensor(data.load("train")[0]).long(), data.sample_shape
    context = size ** torch.arange(order)
    states = windows.unfold(1, order, 1) @ context
    counts = (states[:, :-1] * size + windows[:, order:]).flatten().bincount(minlength=size ** (order + 1))
    chances = counts.view(-1, size).double().add_(1e-9).cumsum_(1)  # after what never occurs: anything
    generator = torch_generator("markov chain", seed)
    symbols = windows[torch.randint(len(windows), (count,), generator=generator)]
    for place in range(order, length):
        chance = chances[symbols[:, place - order : place] @ context]
        drawn = torch.rand(count, 1, generator=generator, dtype=torch.float64) * chance[:, -1:]
        symbols[:, place] = torch.searchsorted(chance, drawn).squeeze(1).clamp_(max=size - 1)
    return data.encode(symbols)


def opponents(data: CharacterData, count: int, seconds: float, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Names and samples; networks learn for so many seconds."""
    order, (size, length) = order_of_chain(data), data.sample_shape
    yield f"Markov chain of order {order}", markov_chain(data, count, seed, order)
    model = next_symbol.fit(torch.as_tensor(data.load("train")[0]), size, seconds=seconds, seed=seed)
    for temperature in next_symbol.TEMPERATURES:
        symbols = model.sample(count, length, temperature, seed)
        yield f"maximum likelihood, temperature {temperature}", data.encode(symbols)
