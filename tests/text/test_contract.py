"""The networks of text satisfy the contract of networks."""

from functools import partial

import torch
from contract import Case, Contract

from litgan.text import CausalTextDiscriminator, RecurrentTextGenerator

SHAPE = (12, 16)
LENGTHS = {(5, 8): {}, (7, 40): {}}


def one_hot_text(count, alphabet_size, length):
    drawn = torch.randint(alphabet_size, (count, length))
    return torch.nn.functional.one_hot(drawn, alphabet_size).transpose(1, 2).float()


class TestContract(Contract):
    generators = {
        "recurrent": Case(partial(RecurrentTextGenerator, latent_dim=3, width=16), SHAPE, LENGTHS),
    }
    discriminators = {
        "causal": Case(
            partial(CausalTextDiscriminator, width=12, kernel=3, dilations=(1, 2)),
            SHAPE,
            LENGTHS,
            one_hot_text,
        ),
    }
    refusals = [
        (
            lambda: RecurrentTextGenerator((1, 28, 28)),
            r"needs samples \[alphabet_size, length\], not \[1, 28",
        ),
        (lambda: RecurrentTextGenerator(SHAPE, width=0), r"widths \[0\]: give numbers of at least 1"),
        (
            lambda: CausalTextDiscriminator((1, 28, 28)),
            r"needs samples \[alphabet_size, length\].*not \[1, 28",
        ),
        (
            lambda: CausalTextDiscriminator(SHAPE, kernel=0),
            r"of at least 1, not \[12, 16\], 0 and \[1, 2, 4\]",
        ),
        (lambda: CausalTextDiscriminator(SHAPE, width=0), r"widths \[0\]: give numbers of at least 1"),
    ]
