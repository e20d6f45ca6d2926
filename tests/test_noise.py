from __future__ import annotations

import itertools
import math

import pytest
import torch

from litgan.noise import BLOCK, Noise, derive_seed, gumbel, torch_generator


@pytest.mark.parametrize("draw", [Noise.normal, Noise.uniform])
@pytest.mark.parametrize(
    "sizes", [[150], [1] * 150, [75, 75], [BLOCK, BLOCK, 150 - 2 * BLOCK], [BLOCK - 1, 2, 149 - BLOCK]]
)
@pytest.mark.parametrize("shape", [(4, 2), (3, 19, 19)])
def test_samples_do_not_depend_on_how_the_batch_is_split(draw, shape, sizes):
    whole = draw(Noise(3, 7, 0, 150), *shape)
    starts = itertools.accumulate([0, *sizes[:-1]])
    parts = [draw(Noise(3, 7, first, count), *shape) for first, count in zip(starts, sizes, strict=True)]
    assert whole.shape == (150, *shape)
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


@pytest.mark.parametrize(("count", "size"), [(4_000, 25), (80, 1_251)])
def test_moments(count, size):
    normal, uniform = Noise(0, 0, 5, count).normal(size), Noise(0, 0, 5, count).uniform(size)
    assert normal.dtype == uniform.dtype == torch.float32
    assert normal.shape == uniform.shape == (count, size)
    assert abs(normal.mean()) < 0.015 and abs(normal.var() - 1) < 0.025
    assert abs(normal.pow(4).mean() - 3) < 0.15
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 1 / 2) < 0.005 and abs(uniform.var() - 1 / 12) < 0.002


def test_no_samples_and_scalars():
    assert Noise(0, 0, 64, 0).normal(3).shape == (0, 3)
    assert Noise(0, 0, 64, 0).normal(5_000).shape == Noise(0, 0, 64, 0).uniform(5_000).shape == (0, 5_000)
    assert Noise(0, 0, 3, 5).uniform().shape == (5,)


def splitmix(seed: int, place: int) -> int:
    """As in the appendix of Steele et al. 2014: the state after so many steps, mixed."""
    word = 2**64 - 1
    state = (seed + place * 0x9E3779B97F4A7C15) & word
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & word
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & word
    return state ^ (state >> 31)


def test_large_samples_are_numbers_of_splitmix64():
    """The first three of seed 0 are known: Vigna's splitmix64.c gives them."""
    assert [splitmix(0, place) for place in (1, 2, 3)] == [
        0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F,
    ]  # fmt: skip
    noise, seed = Noise(5, 9, 3, 2, "x"), derive_seed("x", 5, 9)
    places = range(3 * 1_501, 5 * 1_501)
    expected = [(splitmix(seed, place) >> 40) / 2**24 for place in places]
    assert noise.uniform(1_501).flatten().tolist() == expected
    normal = noise.normal(1_501)
    hashes = [splitmix(seed, place) for place in range(3 * 751, 3 * 751 + 1_501 - 751)]
    for number, bits in zip(normal[0, 751:].tolist(), hashes, strict=True):
        radius = math.sqrt(-2 * math.log(((bits >> 32) + 1) / 2**32))
        angle = 2 * math.pi * (bits & (2**32 - 1)) / 2**32
        assert number == pytest.approx(radius * math.sin(angle), rel=1e-4, abs=2e-6)


def test_large_samples_are_normal_and_independent_in_their_tails_and_of_their_neighbors():
    numbers = Noise(1, 0, 0, 100).normal(10_000)
    for bound, share in ((1.0, 0.158655), (2.0, 0.022750), (3.0, 0.0013499), (4.0, 3.1671e-5)):
        for side in (numbers, -numbers):
            assert (side > bound).sum().item() == pytest.approx(1e6 * share, abs=4 * (1e6 * share) ** 0.5)
    pairs = [(numbers[:, 1:], numbers[:, :-1]), (numbers[1:], numbers[:-1]), numbers.split(5_000, 1)]
    pairs += [(a.square(), b.square()) for a, b in pairs]
    for first, second in pairs:
        correlation = torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1]
        assert abs(correlation) < 5 / first.numel() ** 0.5


def test_seeds_depend_on_every_key_and_their_order():
    keys = [("a", 1, 2), ("a", 2, 1), ("a", 12), ("a", "1", 2), ("b", 1, 2), ("a1", 2), ()]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed("a", 1, 2) == 9_013_816_112_770_105_850  # as ever: published numbers depend on it
    first, second = (torch.rand(3, generator=torch_generator("a")) for _ in range(2))
    assert torch.equal(first, second)


def test_gumbel_noise_has_its_moments_and_no_infinity() -> None:
    noise = gumbel(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert noise.mean().item() == pytest.approx(0.57722, abs=0.02)  # Euler's constant
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.04)
    numbers = torch.linspace(-13, 8, 1001, requires_grad=True)
    exact = -torch.log(-torch.special.log_ndtr(numbers.double()))
    torch.testing.assert_close(gumbel(numbers), exact.float(), rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(value.sum(), numbers)[0] for value in (gumbel(numbers), exact)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
