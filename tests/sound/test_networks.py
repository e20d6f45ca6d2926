"""WaveGAN."""

from __future__ import annotations

import torch
from contract import count

from litgan.sound import WaveGANDiscriminator, WaveGANGenerator
from litgan.sound.networks import PhaseShuffle

SHAPE = (1, 256)


def wavegan(**options) -> WaveGANDiscriminator:
    return WaveGANDiscriminator(SHAPE, widths=(4, 6, 8), **options)


def test_a_factor_of_four_a_width() -> None:
    assert WaveGANGenerator((1, 65_536), widths=(2,) * 6).base_shape == (2, 16)


def test_the_parameters_of_the_paper() -> None:
    """Donahue et al. 2019, tables 3 and 4, with d = 64 and c = 1."""
    stages = [(1024, 512), (512, 256), (256, 128), (128, 64), (64, 1)]
    convolutions = sum(25 * a * b + b for a, b in stages)
    with torch.device("meta"):
        generator = WaveGANGenerator((1, 16_384), widths=(1024, 512, 256, 128, 64))
        discriminator = WaveGANDiscriminator((1, 16_384), widths=(64, 128, 256, 512, 1024))
    assert count(generator) == 101 * 16_384 + convolutions
    assert count(discriminator) == sum(25 * a * b + a for a, b in stages) + 16_385


def test_shuffled_phases_are_shifts_filled_by_reflection() -> None:
    maps = torch.arange(10.0).expand(2_000, 3, 10)
    torch.manual_seed(0)
    shuffled = PhaseShuffle(2)(maps)
    expected = {
        -2: [2, 1, 0, 1, 2, 3, 4, 5, 6, 7], -1: [1, 0, 1, 2, 3, 4, 5, 6, 7, 8], 0: list(range(10)),
        1: [1, 2, 3, 4, 5, 6, 7, 8, 9, 8], 2: [2, 3, 4, 5, 6, 7, 8, 9, 8, 7],
    }  # fmt: skip
    assert torch.equal(shuffled[:, 0], shuffled[:, 2]), "all channels of a sample alike"
    counts = [(shuffled[:, 0] == torch.tensor(row)).all(1).sum().item() for row in expected.values()]
    assert sum(counts) == 2_000 and min(counts) > 300


def test_phases_are_shuffled_in_training_alone_and_by_torch_s_seed() -> None:
    discriminator, samples = wavegan(), torch.randn(8, *SHAPE)
    torch.manual_seed(1)
    first = discriminator(samples)
    assert not torch.equal(first, discriminator(samples))
    torch.manual_seed(1)
    assert torch.equal(first, discriminator(samples))
    discriminator.eval()
    assert torch.equal(discriminator(samples), discriminator(samples))
    still = wavegan(phase_shuffle=0)
    assert torch.equal(still(samples), still(samples))


def test_the_signal_keeps_its_size() -> None:
    torch.manual_seed(0)
    discriminator = WaveGANDiscriminator((1, 4_096), widths=(32, 64, 128)).eval()
    features = discriminator.backbone(torch.randn(8, 1, 4_096))
    assert 0.4 < features.square().mean() < 2.5
    waves = WaveGANGenerator((1, 4_096), widths=(128, 64, 32))(torch.randn(8, 100))
    assert 0.3 < waves.std() < 0.95
