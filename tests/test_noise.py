from __future__ import annotations

import itertools

import pytest
import torch

from litgan.noise import BLOCK, Noise, derive_seed, torch_generator


@pytest.mark.parametrize("draw", [Noise.normal, Noise.uniform])
@pytest.mark.parametrize(
    "sizes", [[150], [1] * 150, [75, 75], [BLOCK, BLOCK, 150 - 2 * BLOCK], [BLOCK - 1, 2, 149 - BLOCK]]
)
def test_samples_do_not_depend_on_how_the_batch_is_split(draw, sizes):
    whole = draw(Noise(3, 7, 0, 150), 4, 2)
    starts = itertools.accumulate([0, *sizes[:-1]])
    parts = [draw(Noise(3, 7, first, count), 4, 2) for first, count in zip(starts, sizes, strict=True)]
    assert torch.equal(torch.cat(parts), whole)
    assert len(whole.flatten(1).unique(dim=0)) == 150  # blocks differ


def test_seeds_iterations_and_streams_are_independent():
    origin = Noise(0, 0, 0, 20_000, "fake")
    others = [
        Noise(1, 0, 0, 20_000, "fake"),
        Noise(0, 1, 0, 20_000, "fake"),
        Noise(0, 0, 20_032, 20_000, "fake"),
        Noise(0, 0, 0, 20_000, "real"),
        origin.stream("flip"),
        origin.stream("flip").stream("flip"),
        origin.stream("colour"),
    ]
    draws = torch.stack([noise.normal() for noise in (origin, *others)])
    correlation = torch.corrcoef(draws) - torch.eye(len(draws))
    assert correlation.abs().max() < 5 / 20_000**0.5


def test_equal_keys_give_equal_numbers_whatever_the_global_state():
    torch.manual_seed(1)
    first = Noise(5, 2, 10, 9, "x").normal(3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, Noise(5, 2, 10, 9, "x").normal(3))
    assert torch.equal(torch.get_rng_state(), state)  # and nobody else's stream moves on


def test_moments():
    normal, uniform = Noise(0, 0, 5, 4_000).normal(25), Noise(0, 0, 5, 4_000).uniform(25)
    assert normal.dtype == uniform.dtype == torch.float32
    assert normal.shape == uniform.shape == (4_000, 25)
    assert abs(normal.mean()) < 0.015 and abs(normal.var() - 1) < 0.025
    assert abs(normal.pow(4).mean() - 3) < 0.15
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 1 / 2) < 0.005 and abs(uniform.var() - 1 / 12) < 0.002


def test_no_samples_and_scalars():
    assert Noise(0, 0, 64, 0).normal(3).shape == (0, 3)
    assert Noise(0, 0, 3, 5).uniform().shape == (5,)


def test_seeds_depend_on_every_key_and_their_order():
    keys = [("a", 1, 2), ("a", 2, 1), ("a", 12), ("a", "1", 2), ("b", 1, 2), ("a1", 2), ()]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("a", 1, 2) == 9_013_816_112_770_105_850  # as ever: published numbers depend on it
    first, second = (torch.rand(3, generator=torch_generator("a")) for _ in range(2))
    assert torch.equal(first, second)
