"""HiFi-GAN's generator and discriminators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contract import count, refuses
from torch.nn.utils.parametrizations import _SpectralNorm

from litgan.losses import LeastSquares
from litgan.sound import HiFiGANDiscriminator, HiFiGANGenerator

LENGTH, MELS, HOP = 8_192, 80, 256  # the paper's segments
THREE: dict[str, Any] = {
    "dilations": [[1, 3, 5]] * 3,
    "kernels": [3, 7, 11],
    "rates": [8, 8, 2, 2],
    "paired": True,
}
VERSIONS = {"v1": THREE | {"channels": 512}, "v2": THREE | {"channels": 128}, "v3": {}}
SMALL: dict[str, Any] = {"channels": 8, "rates": (3, 4), "kernels": (3, 5), "dilations": ((1,), (1, 2))}
NARROW: dict[str, Any] = {"period_widths": (4, 6), "scale_widths": (4, 8, 8, 8, 8, 8, 8)}


@pytest.mark.parametrize(
    ("version", "exact", "millions"),
    [("v1", 13_936_130, 13.92), ("v2", 928_514, 0.92), ("v3", 1_464_322, 1.46)],
)
def test_the_parameters_of_the_generators(version: str, exact: int, millions: float) -> None:
    """As in the authors' code; table 1 of the paper counts no gains of weights, and cuts its decimals."""
    with torch.device("meta"):
        generator = HiFiGANGenerator((1, LENGTH), (MELS, LENGTH // HOP), **VERSIONS[version])
        assert generator(torch.empty(2, 0), torch.empty(2, MELS, 7)).shape == (2, 1, 7 * HOP)
    gains = [gain.numel() for name, gain in generator.named_parameters() if name.endswith("original0")]
    assert count(generator) == exact and (exact - sum(gains)) // 10_000 / 100 == millions


def test_the_parameters_of_the_discriminators() -> None:
    """By hand: kernel size times inputs (over groups) times outputs, and a bias for each output."""
    with torch.device("meta"):
        discriminator = HiFiGANDiscriminator((1, LENGTH))
        logits = discriminator(torch.empty(2, 1, LENGTH))
        periods, scales = discriminator.period_discriminators, discriminator.scale_discriminators
    period = [(5, 1, 32), (5, 32, 128), (5, 128, 512), (5, 512, 1024), (5, 1024, 1024), (3, 1024, 1)]
    scale = [
        (15, 1, 128), (41, 128 // 4, 128), (41, 128 // 16, 256), (41, 256 // 16, 512), (41, 512 // 16, 1024),
        (41, 1024 // 16, 1024), (5, 1024, 1024), (3, 1024, 1),
    ]  # fmt: skip
    for parts, layers, number, millions in ((periods, period, 5, 41.1), (scales, scale, 3, 29.6)):
        gains = [gain.numel() for name, gain in parts.named_parameters() if name.endswith("original0")]
        assert count(parts) - sum(gains) == number * sum(k * a * b + b for k, a, b in layers)
        assert round(count(parts) / 1e6, 1) == millions
    assert logits.shape == (2, sum(discriminator.logit_counts))


@pytest.mark.parametrize("length", [250, 256, 1_001])
def test_the_logits_are_counted_at_any_length(length: int) -> None:
    discriminator = HiFiGANDiscriminator((1, length), **NARROW)
    maps = discriminator.features(torch.randn(2, 1, length))
    logits = [part for part in maps if part.shape[1] == 1]
    assert discriminator.logit_counts == tuple(part[0].numel() for part in logits)
    assert len(maps) == 5 * 3 + 3 * 8 and len(logits) == 8
    whole = HiFiGANDiscriminator((1, length), scales=0, periods=(1,), period_widths=(2,))
    assert whole.logit_counts == (length,)


def test_the_loss_is_the_sum_of_the_discriminators_means() -> None:
    discriminator = HiFiGANDiscriminator((1, 256), **NARROW).eval()
    real, fake = torch.randn(2, 3, 1, 256)
    loss = LeastSquares().sum_of_means(discriminator.logit_counts)
    found = 2 * loss.discriminator(real=discriminator(real), fake=discriminator(fake)).mean()
    heads = [[part for part in discriminator.features(x) if part.shape[1] == 1] for x in (real, fake)]
    expected = sum(((1 - r) ** 2).mean() + (f**2).mean() for r, f in zip(*heads, strict=True))
    torch.testing.assert_close(found, expected)


def test_the_columns_of_a_period_are_independent() -> None:
    """A change of one sample changes only the logits of its own column."""
    discriminator = HiFiGANDiscriminator((1, 256), period_widths=(4,), periods=(3,), scales=0).eval()
    samples = torch.randn(1, 1, 256)
    changed = samples.clone()
    changed[..., 100] += 1
    changes = (discriminator(samples) != discriminator(changed)).view(-1, 3).any(0)
    assert changes.tolist() == [False, True, False], "100 = 1 modulo 3"


def test_the_first_scale_has_spectral_norm_and_the_others_learn_the_norms_of_their_weights() -> None:
    discriminator = HiFiGANDiscriminator((1, 256), **NARROW)
    first, *others = (*discriminator.scale_discriminators, *discriminator.period_discriminators)
    assert all(isinstance(layer.parametrizations.weight[0], _SpectralNorm) for layer in first.layers)
    for part in others:
        gain, weight = part.layers[1].parametrizations.weight.original0, part.layers[1].weight
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), gain.flatten().abs())


def test_a_condition_that_is_no_class_is_not_read() -> None:
    discriminator = HiFiGANDiscriminator((1, 256), (80, 4), **NARROW).eval()
    samples = torch.randn(2, 1, 256)
    assert torch.equal(discriminator(samples, torch.randn(2, 80, 4)), discriminator(samples))


@pytest.mark.parametrize("frames", [1, 5, 40])
def test_the_generator_lengthens_any_number_of_frames_by_its_rates(frames: int) -> None:
    """Odd rates too; a frame reaches as far as the kernels do, on both sides alike."""
    generator = HiFiGANGenerator((1, 60), (6, 5), **SMALL)
    mel = torch.randn(2, 6, frames, requires_grad=True)
    waves = generator(torch.empty(2, 0), mel)
    assert waves.shape == (2, 1, 12 * frames) and waves.abs().max() < 1
    waves.sum().backward()
    assert mel.grad.abs().amin() > 0
    unused = [name for name, weight in generator.named_parameters() if weight.grad is None]
    assert unused == []


def test_a_longer_spectrogram_gives_the_same_wave_but_near_the_cut() -> None:
    generator, mel = HiFiGANGenerator((1, 60), (6, 5), **SMALL).double(), torch.randn(1, 6, 80).double()
    whole, part = generator(torch.empty(1, 0), mel), generator(torch.empty(1, 0), mel[..., 20:60])
    torch.testing.assert_close(part[..., 120:-120], whole[..., 360:-360])
    assert not torch.allclose(part[..., :12], whole[..., 240:252])


def test_a_condition_that_does_not_fit_is_named() -> None:
    generator, wanted = HiFiGANGenerator((1, 60), (6, 5), **SMALL), r"inputs \['B', 6, 'frames'\] but got "
    refuses(lambda: generator(torch.empty(2, 0), None), wanted + r"\[2, 0\]")
    refuses(lambda: generator(torch.empty(2, 0), torch.zeros(2, 5, 5)), wanted + r"\[2, 5, 5\]")
