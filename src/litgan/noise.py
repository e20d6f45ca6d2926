"""Random numbers as a function of the seed, the iteration and the sample's index over all ranks.

There is no state to save. Sample 17 of iteration 400 gets the same latents on any number of ranks, in a
resumed run, and on a CPU or GPU: numbers are drawn on the CPU, then moved. What is larger than latents is
computed on the device, from hashes of the numbers' places: uniform numbers are the same bits on all devices,
normal ones differ in the last bits, as logarithms and cosines do.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

BLOCK = 64  # samples drawn from one seed; a rank draws only the blocks that its samples lie in
LARGE = 1024  # numbers of a sample; above, they are hashes
WEYL = 0x9E3779B97F4A7C15 - 2**64  # of SplitMix64, like the shifts and factors; as int64
SPLITMIX = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1))


def derive_seed(*keys: int | str) -> int:
    """A 63-bit seed that depends on every key and on their order."""
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def torch_generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded by `keys`."""
    return torch.Generator().manual_seed(derive_seed(*keys))


def send(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device, without waiting for a busy GPU."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def seed_device(device: torch.device, *keys: int | str) -> None:
    """Seeds torch's global generators of the CPU and of `device`, from which e.g. dropout draws.

    `torch.manual_seed` seeds all kinds of devices: with CUDA built in but absent, each call queues another
    one with a formatted traceback, which takes 1 ms and is never freed.
    """
    seed = derive_seed(*keys)
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


@dataclass(frozen=True)
class Noise:
    """The random numbers of samples `first` to `first + count` of one iteration.

    Two calls for the same shape return the same numbers; `stream(name)` has others.
    """

    seed: int
    iteration: int
    first: int  # index, over all ranks, of the first sample
    count: int  # samples on this rank
    name: str = ""
    device: torch.device | str = "cpu"

    def stream(self, name: str) -> Noise:
        """Independent numbers for the same samples, e.g. `noise.stream("flip")`."""
        return replace(self, name=f"{self.name}/{name}")

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32 [count, *shape]."""
        if (size := math.prod(shape)) <= LARGE:
            return self._draw(torch.randn, shape)
        bits = self._hashes((size + 1) // 2)  # each gives two, by Box & Muller 1958
        radius = ((bits >> 32 & 0xFFFFFFFF) + 1).float().div(2**32).log().mul(-2).sqrt()
        angle = (bits & 0xFFFFFFFF).float() * (2 * math.pi / 2**32)
        pairs = torch.cat([radius * angle.cos(), radius * angle.sin()], 1)
        return pairs[:, :size].reshape(self.count, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1), float32 [count, *shape]."""
        if (size := math.prod(shape)) <= LARGE:
            return self._draw(torch.rand, shape)
        return (self._hashes(size) >> 40 & 0xFFFFFF).float().div(2**24).reshape(self.count, *shape)

    def _hashes(self, size: int) -> Tensor:
        """64 bits for each of so many places in each sample, int64 [count, size].

        SplitMix64, Steele et al. 2014, "Fast splittable pseudorandom number generators", in which any number
        of the sequence can be computed alone.
        """
        start = self.first * size
        places = torch.arange(start, start + self.count * size, device=self.device).view(self.count, size)
        bits = places * WEYL + derive_seed(self.name, self.seed, self.iteration)
        for shift, factor in SPLITMIX:
            bits = (bits ^ (bits >> shift & (1 << 64 - shift) - 1)) * factor  # without the sign bit's copies
        return bits

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        start, stop = self.first // BLOCK, -(-(self.first + self.count) // BLOCK)
        generator = torch.Generator()
        blocks = []
        for block in range(start, stop):
            generator.manual_seed(derive_seed(self.name, self.seed, self.iteration, block))
            blocks.append(draw(BLOCK, *shape, generator=generator))
        if not blocks:
            return torch.empty(0, *shape, device=self.device)
        drawn = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
        if len(drawn) != self.count:
            drawn = drawn.narrow(0, self.first - start * BLOCK, self.count)
        return send(drawn, self.device)


def gumbel(normal: Tensor) -> Tensor:
    """Maps standard normal to standard Gumbel numbers: -log(-log(Phi(x))), for |x| up to 13."""
    normal = normal.to(torch.promote_types(normal.dtype, torch.float32))
    tail = torch.special.erfc(normal.abs() * 0.5**0.5) / 2  # Phi(-|x|); log_ndtr has no Metal kernel
    return -torch.log(-torch.where(normal > 0, torch.log1p(-tail), tail.log()))
