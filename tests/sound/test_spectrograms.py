"""The discriminator of spectrograms sees what it says, at each of its resolutions."""

from __future__ import annotations

import math
from functools import partial

import torch
from contract import refuses

from litgan.losses import NonSaturating
from litgan.sound import HiFiGANDiscriminator, SpectrogramDiscriminator, WaveGANDiscriminator
from litgan.sound.metrics import SoundStatistics


def small(shape: tuple[int, ...] = (1, 1_024), classes: int = 0, **options) -> SpectrogramDiscriminator:
    options = {"resolutions": ((256, 64, 10), (64, 16, 5)), "widths": (4, 6)} | options
    return SpectrogramDiscriminator(shape, classes, **options)


def test_a_spectrogram_is_that_of_the_metric_at_its_resolution() -> None:
    """Amplitudes in bands, but of the mean power and not of the mean amplitude: equal for noise, nearly."""
    waves = torch.randn(8, 1, 8_192, generator=torch.Generator().manual_seed(0)) / 4
    made = SpectrogramDiscriminator((1, 8_192), resolutions=((512, 128, 40),), mu_law=0)
    found = made.spectrogram(waves, 0)
    metric = 10 ** SoundStatistics().levels(waves[:, 0])
    assert found.shape == (8, 1, 40, 64)
    torch.testing.assert_close(found.mean((0, 3))[0], metric.mean((0, 2)), rtol=0.2, atol=0)


def test_a_sine_lights_one_band_and_an_onset_one_frame() -> None:
    made = small(sample_rate=8_000, mu_law=0.0)
    time = torch.arange(1_024)
    low, high = (
        made.spectrogram(torch.sin(2 * math.pi * f / 8_000 * time)[None, None], 0) for f in (300, 3e3)
    )
    assert low.mean(3).argmax() < high.mean(3).argmax() and low.max() <= 1.1
    click = torch.zeros(1, 1, 1_024)
    click[..., 640] = 1
    assert made.spectrogram(click, 1).mean(2).argmax() == 640 // 16


def test_quiet_parts_count_with_mu_law() -> None:
    waves = 1e-3 * torch.randn(2, 1, 1_024)
    encoded, plain = (small(mu_law=mu).spectrogram(waves, 0).mean() for mu in (255.0, 0.0))
    assert encoded > 20 * plain


def test_each_resolution_and_what_is_beside_has_its_logits() -> None:
    beside = partial(HiFiGANDiscriminator, periods=(2, 3), period_widths=(4,), scales=0)
    made, samples = small(classes=3, beside=beside), torch.randn(4, 1, 1_024)
    labels = torch.arange(4) % 3
    logits = made(samples, labels)
    assert made.logit_counts == (1, 1, 1_024, 1_026) and logits.shape == (4, sum(made.logit_counts))
    assert torch.equal(logits[:, 2:], made.beside(samples, labels))
    wave = small(beside=partial(WaveGANDiscriminator, widths=(4, 6)))
    assert wave.logit_counts == (1, 1, 1) and not wave.uses_batch_statistics
    one, two = (torch.randn(5, 3) for _ in range(2))
    summed = NonSaturating().sum_of_means(wave.logit_counts).discriminator(real=one, fake=two)
    columns = zip(one.split(1, 1), two.split(1, 1), strict=True)
    each = [NonSaturating().discriminator(real=a, fake=b) for a, b in columns]
    torch.testing.assert_close(summed, torch.stack(each).sum(0))


def test_samples_that_are_no_sounds_are_refused() -> None:
    refuses(lambda: small((1, 8, 8)), r"\[1, 8, 8\]")
    refuses(lambda: small(resolutions=()), "0 resolutions")
