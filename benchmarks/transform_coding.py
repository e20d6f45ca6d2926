"""What a tokenizer has to beat: a fixed transform and an ideal entropy code, at as many bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TRIALS = 20  # halvings of the interval in which the step is looked for


def dct(size: int) -> Tensor:
    """The orthonormal discrete cosine transform, DCT-II of Ahmed et al. 1974: [size, size]."""
    position = torch.arange(size, dtype=torch.float32)
    matrix = torch.cos(math.pi / size * (position + 0.5) * position[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def transformed(samples: Tensor, matrix: Tensor) -> Tensor:
    """The matrix times each block, along all axes but the first two, of samples [N, C, ...]."""
    for axis in range(2, samples.ndim):
        blocks = samples.movedim(axis, -1).unflatten(-1, (-1, len(matrix)))
        samples = (blocks @ matrix.T).flatten(-2).movedim(-1, axis)
    return samples


def entropy(levels: Tensor, size: int) -> float:
    """Bits a value of quantized coefficients [N, C, ...], each place in a block having a code of its own."""
    spatial = torch.zeros(1, dtype=torch.long)
    for length in levels.shape[2:]:
        spatial = spatial[:, None] * size + torch.arange(length) % size
        spatial = spatial.flatten()
    place = spatial.expand(levels.shape[0] * levels.shape[1], -1).flatten()
    values = (levels - levels.min()).long().flatten()
    width = int(values.max()) + 1
    joint = (place * width + values).bincount(minlength=width).double()
    places = place.bincount().double()
    bits = torch.special.entr(joint / len(values)).sum() - torch.special.entr(places / len(values)).sum()
    return bits.item() / math.log(2)


def code(samples: Tensor, known: Tensor, bits: float, size: int) -> Tensor:
    """Samples [N, C, ...] through coefficients of blocks of `size` a side, rounded to multiples of one step.

    The step is the finest for which the coefficients of the `known` samples, of the training split, have an
    entropy of at most `bits` a value. Sides are multiples of `size`.
    """
    matrix = dct(size)
    learned, low, high = transformed(known, matrix), -12.0, 4.0
    for _ in range(TRIALS):
        middle = (low + high) / 2
        if entropy((learned / 2**middle).round(), size) > bits:
            low = middle
        else:
            high = middle
    coefficients = (transformed(samples, matrix) / 2**high).round() * 2**high
    return transformed(coefficients, matrix.T).clamp(-1, 1)
