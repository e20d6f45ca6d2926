"""What does not fit into the memory: torch's own errors of the CPU, from networks that ask for an exabyte."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from litgan.data import Ring
from litgan.data.loader import Loader, ResumableBatchSampler
from litgan.memory import AutoBatchSize
from litgan.networks import MLPDiscriminator, MLPGenerator
from litgan.noise import Noise
from litgan.sampling import generate_in_chunks


class Limited:
    """A network that has memory for three samples."""

    def forward(self, samples: Tensor, *arguments: Tensor, **options: Noise) -> Tensor:
        if len(samples) > 3:
            torch.empty(2**60)
        return super().forward(samples, *arguments, **options)


class Generator(Limited, MLPGenerator):
    draws_noise = True

    def forward(self, latents: Tensor, condition: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        samples = super().forward(latents, condition)
        return samples if noise is None else samples + noise.stream("own").normal(2)


class Discriminator(Limited, MLPDiscriminator):
    pass


def test_a_batch_that_is_too_large_is_halved():
    generator = Generator((2,), 3, latent_dim=4, widths=(8,))
    latents, classes, noise = torch.randn(20, 4), torch.arange(20) % 3, Noise(0, 0, 5, 20)
    halved = generate_in_chunks(generator, latents, classes, noise=noise)
    alone = [
        generate_in_chunks(generator, latents[[row]], classes[[row]], noise=Noise(0, 0, 5 + row, 1))
        for row in range(20)
    ]
    torch.testing.assert_close(halved, torch.cat(alone))


def test_other_errors_are_raised_at_once():
    calls = []

    def broken(start: int, size: int) -> Tensor:
        calls.append(size)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        AutoBatchSize()(broken, 8)
    assert calls == [8]


def test_training_says_how_many_parts_to_try(tiny_gan, tiny_data, make_trainer):
    limited = {"discriminator": partial(Discriminator, widths=(16,))}
    for parts, more in ((1, "micro_batches 2"), (2, "micro_batches 4")):
        with pytest.raises(RuntimeError, match=f"discriminator by {8 // parts} samples .*{more}"):
            make_trainer(1).fit(tiny_gan(**limited, micro_batches=parts), datamodule=tiny_data())
    make_trainer(1).fit(tiny_gan(**limited, micro_batches=4), datamodule=tiny_data())


class Exabytes:
    """A data set on a disk."""

    fingerprint = "0"

    def __len__(self) -> int:
        return 2**58

    def __getitem__(self, index: int) -> Tensor:
        return torch.zeros(2)


def test_a_memory_that_the_samples_do_not_fit_into_is_named(tiny_data, monkeypatch):
    class Resident(Tensor):
        def to(self, *_: object) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 80 bytes")

    samples = torch.zeros(10, 2).as_subclass(Resident)
    with pytest.raises(RuntimeError, match=r"data\.memory device .* data\.memory auto or host"):
        Loader(samples, None, ResumableBatchSampler(10, 2), memory="device")
    monkeypatch.setattr(Ring, "read", lambda self, split: (Exabytes(), None))
    with pytest.raises(RuntimeError, match=r"GiB of samples: .* disk, not host"):
        tiny_data(memory="host").load()
