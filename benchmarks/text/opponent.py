"""What a GAN of text has to beat: a model without a network, and one that predicts the next character.

`opponents` gives their samples, [count, *sample_shape] as the discriminator sees them.
"""

from __future__ import annotations

from collections.abc import Iterator

import next_symbol
import torch
from torch import Tensor

from litgan.noise import torch_generator
from litgan.text.data import CharacterData


def markov_chain(data: CharacterData, count: int, seed: int, order: int = 3) -> Tensor:
    """Each character drawn with the probabilities that it has in training windows after the last three.

    The first three are those of a window chosen at random.
    """
    windows, size = data.load("train")[0].long(), data.alphabet_size
    context = size ** torch.arange(order)
    states = windows.unfold(1, order, 1) @ context
    counts = (states[:, :-1] * size + windows[:, order:]).flatten().bincount(minlength=size ** (order + 1))
    chances = counts.view(-1, size).double().add_(1e-9).cumsum_(1)  # after what never occurs: anything
    generator = torch_generator("markov chain", seed)
    symbols = windows[torch.randint(len(windows), (count,), generator=generator)]
    for place in range(order, data.length):
        chance = chances[symbols[:, place - order : place] @ context]
        drawn = torch.rand(count, 1, generator=generator, dtype=torch.float64) * chance[:, -1:]
        symbols[:, place] = torch.searchsorted(chance, drawn).squeeze(1).clamp_(max=size - 1)
    return data.encode(symbols)


def opponents(data: CharacterData, count: int, seconds: float, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Names and samples; networks learn for so many seconds."""
    yield "Markov chain of order 3", markov_chain(data, count, seed)
    model = next_symbol.fit(
        torch.as_tensor(data.load("train")[0]), data.alphabet_size, seconds=seconds, seed=seed
    )
    for temperature in next_symbol.TEMPERATURES:
        symbols = model.sample(count, data.length, temperature, seed)
        yield f"maximum likelihood, temperature {temperature}", data.encode(symbols)
