"""What people pick instead of a GAN of text or music: a recurrent network that predicts the next symbol.

It learns by maximum likelihood, from the same training split, for a given time or until its loss on a part
of that split which it does not learn from has stopped falling. One temperature proves nothing, as it trades
quality for diversity (Caccia et al. 2020, "Language GANs falling short"): it is sampled at four.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.noise import torch_generator

TEMPERATURES = (1.0, 0.9, 0.8, 0.7)
BATCH, RATE = 128, 2e-3
BLOCK = 50  # sequences held out side by side
CHECK = 100  # iterations between two looks at the held-out loss
PATIENCE = 10  # looks without a better loss, after which it stops


class NextSymbol(nn.Module):
    """A GRU (Cho et al. 2014) over embedded symbols: int64 [B, T] to logits [B, T, symbols].

    The logits at position t depend on the symbols before t, and on t modulo `period`, such as the voice whose
    turn it is.
    """

    def __init__(self, symbols: int, period: int = 1, width: int = 256) -> None:
        super().__init__()
        self.symbols, self.period = symbols, period
        self.embed = nn.Embedding(symbols + 1, width)  # the last one stands before the first symbol
        self.turn = nn.Embedding(period, width)
        self.rnn = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, symbols)

    def forward(self, before: Tensor, state: Tensor | None = None, first: int = 0) -> tuple[Tensor, Tensor]:
        """Logits, and the state after them; `before` begins with the symbol before position `first`."""
        turn = torch.arange(first, first + before.shape[1], device=before.device) % self.period
        hidden, state = self.rnn(self.embed(before) + self.turn(turn), state)
        return self.head(hidden), state

    def loss(self, symbols: Tensor) -> Tensor:
        """Mean negative log-likelihood of a symbol, in nats."""
        logits, _ = self(F.pad(symbols[:, :-1], (1, 0), value=self.symbols))
        return F.cross_entropy(logits.flatten(0, 1), symbols.flatten())

    @torch.no_grad()
    def sample(self, count: int, length: int, temperature: float, seed: int) -> Tensor:
        """Sequences, int64 [count, length], one symbol after the other."""
        generator = torch_generator("next symbol", seed)
        symbols, state = torch.full((count, 1), self.symbols), None
        for place in range(length):
            logits, state = self(symbols[:, -1:], state, place)
            chances = (logits[:, 0] / temperature).softmax(1)
            symbols = torch.cat([symbols, chances.multinomial(1, generator=generator)], 1)
        return symbols[:, 1:]


def fit(
    sequences: Tensor,
    symbols: int,
    period: int = 1,
    *,
    seconds: float = math.inf,
    width: int = 256,
    iterations: int = 20_000,
    seed: int = 0,
) -> NextSymbol:
    """The model after training on nine tenths of sequences, [N, T]; the other tenth tells when to stop.

    It is every tenth block, because sequences that stand side by side may overlap.
    """
    torch.manual_seed(seed)
    model = NextSymbol(symbols, period, width)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    sequences = sequences.long()
    is_held_out = torch.arange(len(sequences)) // min(BLOCK, max(1, len(sequences) // 10)) % 10 == 0
    held_out, training = sequences[is_held_out][:2_000], sequences[~is_held_out]
    best, weights, waited, end = math.inf, model.state_dict(), 0, time.perf_counter() + seconds
    for iteration, chosen in enumerate(batches(len(training), seed), start=1):
        optimizer.zero_grad()
        model.loss(training[chosen]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        over = iteration == iterations or time.perf_counter() > end
        if over or iteration % CHECK == 0:
            with torch.no_grad():
                loss = model.loss(held_out).item()
            waited += 1
            if loss < best:
                best, waited = loss, 0
                weights = {key: value.clone() for key, value in model.state_dict().items()}
            if over or waited == PATIENCE:
                break
    model.load_state_dict(weights)
    return model


def batches(size: int, seed: int) -> Iterator[Tensor]:
    """Indices of batches, epoch after epoch, without end."""
    generator = torch_generator("next symbol batches", seed)
    while True:
        yield from torch.randperm(size, generator=generator).split(BATCH)
