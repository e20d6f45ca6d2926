"""Vocos, a vocoder that writes spectra."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from contract import count, refuses

from litgan.sound import MelSpectrogram, VocosGenerator
from litgan.sound.istft import InverseSTFT

SMALL: dict[str, Any] = {"n_fft": 64, "width": 8, "inner": 12, "depth": 2}
MEL = MelSpectrogram(8_000, n_fft=64, hop=16, window=64, n_mels=12)


def test_the_parameters_are_the_papers() -> None:
    """Table 1: 13.5 M. By hand: kernels of 7, layer norms, and blocks of two linear layers with a scale."""
    with torch.device("meta"):
        generator = VocosGenerator((1, 25_600), (100, 100))
        assert generator(torch.empty(2, 0), torch.empty(2, 100, 7)).shape == (2, 1, 7 * 256)
    block = 512 * 7 + 512 + 2 * 512 + (512 * 1_536 + 1_536) + (1_536 * 512 + 512) + 512
    ends = (7 * 100 * 512 + 512) + 4 * 512 + (512 * 1_026 + 1_026)
    assert count(generator) == 8 * block + ends and round(count(generator) / 1e6, 1) == 13.5


@pytest.mark.parametrize(("frames", "channels"), [(2, 1), (5, 2), (40, 1)])
def test_any_number_of_frames_gives_as_many_hops(frames: int, channels: int) -> None:
    generator = VocosGenerator((channels, 320), (12, 20), mel=MEL, **SMALL)
    bands = torch.randn(2, 12, frames, requires_grad=True)
    waves = generator(torch.empty(2, 0), bands)
    assert waves.shape == (2, channels, 16 * frames)
    waves.square().sum().backward()
    assert bands.grad.abs().amin() > 0
    assert [name for name, weight in generator.named_parameters() if weight.grad is None] == []


def test_a_longer_spectrogram_gives_the_same_wave_but_near_the_cut() -> None:
    generator = VocosGenerator((1, 320), (12, 20), mel=MEL, **SMALL).double()
    bands = torch.randn(1, 12, 80).double()
    whole, part = generator(torch.empty(1, 0), bands), generator(torch.empty(1, 0), bands[..., 20:60])
    torch.testing.assert_close(part[..., 240:-240], whole[..., 560:-560])
    assert not torch.allclose(part[..., :16], whole[..., 320:336])


def test_a_bin_gives_a_sine_of_its_magnitude_and_phase() -> None:
    """Magnitudes are those of a transform with Hann windows: n_fft / 4 for a sine, half at its neighbors."""
    generator = VocosGenerator((1, 320), (12, 20), **SMALL)
    torch.nn.init.zeros_(generator.last.weight)
    magnitude, phase = torch.full((33,), -30.0), torch.zeros(33)
    magnitude[7:10] = torch.tensor([0.5, 1.0, 0.5]).mul(16 * 0.3).log()
    phase[7:10] = torch.tensor([math.pi, 0, math.pi])  # a window in the middle of its frame turns neighbors
    generator.last.bias.data = torch.cat([magnitude, phase])
    wave = generator(torch.empty(1, 0), torch.randn(1, 12, 20))[0, 0, 64:-64].detach()
    # Bin 8 of 64 has its peaks where frames begin, which lie (64 - 16) / 2 samples before each hop.
    expected = 0.3 * torch.cos(2 * math.pi * 8 / 64 * (torch.arange(len(wave)) + 24))
    torch.testing.assert_close(wave, expected, atol=1e-4, rtol=0)


def test_magnitudes_begin_as_the_estimate_from_the_bands() -> None:
    """FreeV's: the magnitudes of least norm with these bands, at least 1e-5; what is learned counts too."""
    generator = VocosGenerator((1, 1_024), (12, 64), mel=MEL, **SMALL)
    time = torch.arange(1_024) / 8_000
    sine = 0.5 * torch.sin(2 * math.pi * 1_000 * time)[None, None]
    levels = MEL(torch.cat([sine, torch.zeros_like(sine)]))
    magnitudes = (
        torch.linalg.lstsq(MEL.bands.expand(2, -1, -1), levels.exp(), driver="gelsd")
        .solution.abs()
        .clamp_min(1e-5)
    )
    inverse = InverseSTFT(64, 16)
    torch.nn.init.zeros_(generator.last.weight)
    for change in (0.0, math.log(2)):
        generator.last.bias.data[:33] = change
        waves = generator(torch.empty(2, 0), levels).detach()
        expected = inverse(magnitudes / 16, torch.zeros_like(magnitudes)) * math.exp(change)
        torch.testing.assert_close(waves[:, 0], expected, atol=1e-5, rtol=1e-4)
        assert waves[0].abs().max() > 0.05 and waves[1].abs().max() < 1e-3


def test_what_does_not_fit_is_named() -> None:
    refuses(lambda: VocosGenerator((1, 320), 10), r"\[1, 320\] and the condition is 10")
    refuses(lambda: VocosGenerator((1, 330), (12, 20)), r"\[1, 330\] and the condition is \(12, 20\)")
    refuses(lambda: VocosGenerator((1, 320), (12, 20), mel=MEL), r"n_fft 1024, .*\(64, 16, 64, 12\)")
    generator = VocosGenerator((1, 320), (12, 20), **SMALL)
    refuses(lambda: generator(torch.empty(2, 0), None), r"\['B', 12, 'frames'\] but got \[2, 0\]")
