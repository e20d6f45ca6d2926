"""The networks of text satisfy the contract of networks."""

from functools import partial

import torch
from contract import COMPILED, Case, Contract

from litgan.text import CausalTextDiscriminator, RecurrentTextGenerator, TextDiscriminator, TextGenerator

SHAPE = (12, 16)
LENGTHS = {(5, 8): {}, (7, 40): {}}


def one_hot_text(count, alphabet_size, length):
    drawn = torch.randint(alphabet_size, (count, length))
    return torch.nn.functional.one_hot(drawn, alphabet_size).transpose(1, 2).float()


def convolutional(exempt=None, **options):
    return Case(
        partial(TextGenerator, latent_dim=8, widths=(16, 12, 8), **options),
        SHAPE,
        LENGTHS,
        exempt=exempt or {},
    )


class TestContract(Contract):
    generators = {
        "convolutional": convolutional(),
        "convolutional-flat": convolutional(COMPILED, resample=False),
        "convolutional-gumbel": convolutional(output="gumbel"),
        "recurrent": Case(partial(RecurrentTextGenerator, latent_dim=3, width=16), SHAPE, LENGTHS),
    }
    discriminators = {
        "convolutional": Case(partial(TextDiscriminator, widths=(8, 12, 16)), SHAPE, LENGTHS, one_hot_text),
        "convolutional-flat": Case(
            partial(TextDiscriminator, widths=(8, 12, 16), resample=False),
            SHAPE,
            LENGTHS,
            one_hot_text,
            exempt=COMPILED,
        ),
        "causal": Case(
            partial(CausalTextDiscriminator, width=12, kernel=3, dilations=(1, 2)),
            SHAPE,
            LENGTHS,
            one_hot_text,
        ),
    }
    refusals = [
        (lambda: TextGenerator((1, 28, 28)), r"TextGenerator needs samples \[alphabet_size, length\]"),
        (lambda: TextDiscriminator(SHAPE, kernel=4), "an odd kernel"),
        (lambda: TextGenerator(SHAPE, widths=()), "and a width"),
        (lambda: TextGenerator(SHAPE, widths=(8, 0)), r"widths \[8, 0\]"),
        (lambda: TextGenerator(SHAPE, output="argmax"), "no output 'argmax': choose softmax or gumbel"),
        (lambda: TextDiscriminator((12, 18), widths=(8,) * 3), "halves 18 characters 2 times: .* 4 divides"),
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
