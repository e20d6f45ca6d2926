"""Resampling, spectra and mel bands against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from litgan.sound.signals import (
    hz_to_mel,
    mel_filterbank,
    mel_to_hz,
    mu_law_decode,
    mu_law_encode,
    resample,
    stft,
)


def sine(frequency: float, rate: int, seconds: float = 0.25) -> torch.Tensor:
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return torch.sin(2 * math.pi * frequency * time).float()


@pytest.mark.parametrize(("source", "target"), [(44_100, 16_000), (8_000, 16_000), (16_000, 44_100)])
def test_a_resampled_sine_is_the_sine_at_the_other_rate(source: int, target: int) -> None:
    for share in (0.01, 0.2, 0.8):  # of the lower Nyquist frequency
        frequency = share * min(source, target) / 2
        found, expected = resample(sine(frequency, source), source, target), sine(frequency, target)
        assert found.shape == expected.shape
        torch.testing.assert_close(found[300:-300], expected[300:-300], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("source", "target"), [(44_100, 16_000), (8_000, 11_025), (3, 2)])
def test_resampling_without_a_table_of_filters_is_torchaudios(source: int, target: int, monkeypatch) -> None:
    waves = torch.randn(2, 3_001, generator=torch.Generator().manual_seed(0))
    expected = resample(waves, source, target)
    monkeypatch.setattr("litgan.sound.signals.LARGEST_FILTER", 1)
    torch.testing.assert_close(resample(waves, source, target), expected, rtol=0, atol=1e-4)


def test_resampling_filters_aliases_rounds_lengths_up_and_keeps_the_same_rate() -> None:
    kept = resample(sine(9_000, 44_100), 44_100, 16_000)
    assert kept[300:-300].abs().max() < 2e-3, "54 dB; taking every third sample would leave an alias at 0 dB"
    wave = torch.randn(1_001)
    assert resample(wave, 8_000, 8_000) is wave
    assert len(resample(wave, 3, 2)) == 668 and len(resample(wave[:1], 44_100, 8_000)) == 1


def test_the_mu_law_is_its_formula_and_can_be_undone() -> None:
    waves = torch.arange(-1000, 1001) / 1000
    for mu in (8.0, 255.0):
        encoded = mu_law_encode(waves, mu)
        assert encoded[[0, 1000, 2000]].tolist() == [-1.0, 0.0, 1.0]
        assert encoded[1500].item() == pytest.approx(math.log(1 + mu / 2) / math.log(1 + mu))
        torch.testing.assert_close(encoded, -encoded.flip(0))
        torch.testing.assert_close(mu_law_decode(encoded, mu), waves)
    assert mu_law_encode(waves, 0) is waves and mu_law_decode(waves, 0) is waves


def test_bands_are_triangles_between_evenly_spaced_corners_of_the_mel_scale() -> None:
    assert hz_to_mel(torch.tensor(1000.0)).item() == pytest.approx(1000, abs=0.1)
    bands = mel_filterbank(10, 4097, 16_000)
    torch.testing.assert_close(bands.sum(1), torch.ones(10))
    ends = hz_to_mel(torch.tensor([30.0, 8000.0]))
    corners = mel_to_hz(torch.linspace(*ends.tolist(), 12)) / 8000 * 4096
    assert corners[-1] == pytest.approx(4096, rel=1e-5), "the two scales are inverse"
    for index, band in enumerate(bands):
        inside = band.nonzero().flatten()
        assert inside[0] >= corners[index] and inside[-1] <= corners[index + 2]
        assert abs(band.argmax() - corners[index + 1]) <= 1
        rising = band[math.ceil(corners[index]) : math.floor(corners[index + 1])]
        assert rising.diff().std() < 1e-3 * rising.diff().mean(), "straight"
    narrow = mel_filterbank(64, 65, 8_000)
    torch.testing.assert_close(narrow.sum(1), torch.ones(64))  # none is empty


@pytest.mark.parametrize(("bands", "bins", "rate"), [(40, 257, 16_000), (64, 1_025, 44_100)])
def test_bands_wider_than_a_bin_are_those_of_torchaudio(bands: int, bins: int, rate: int) -> None:
    functional = pytest.importorskip("torchaudio").functional
    found = functional.melscale_fbanks(bins, 30.0, rate / 2, bands, rate).T
    expected = found / found.sum(1, keepdim=True)
    torch.testing.assert_close(mel_filterbank(bands, bins, rate), expected, rtol=0, atol=2e-6)


def test_the_spectrum_of_a_sine_is_the_window_s() -> None:
    found = stft(sine(2_000, 16_000)[None], window=512, hop=128).abs()
    assert found.shape == (1, 257, math.ceil(4_000 / 128))
    expected = torch.zeros(257)
    expected[63:66] = torch.tensor([0.5, 1.0, 0.5])  # a Hann window is three bins wide
    torch.testing.assert_close(found[0, :, 15], expected, rtol=0, atol=1e-4)
    assert stft(torch.ones(2, 20), window=64, hop=32).shape == (2, 33, 1), "shorter than a window"
