"""A head that inverts spectra gives back the sound that they are of."""

from __future__ import annotations

import math

import pytest
import torch
from contract import refuses

from litgan.sound import ISTFTGenerator
from litgan.sound.istft import InverseSTFT
from litgan.sound.signals import stft
from litgan.sound.tones import tone_errors


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (32, 16), (48, 16), (512, 128)])
def test_the_spectrum_of_a_sound_gives_the_sound(n_fft: int, hop: int) -> None:
    """Those of `signals.stft`, whose frames lie on every hop-th sample: half a hop earlier."""
    waves = torch.randn(3, 20 * hop, generator=torch.Generator().manual_seed(0))
    spectra = stft(torch.nn.functional.pad(waves, (hop // 2, 0)), n_fft, hop)[..., 1:21]
    found = InverseSTFT(n_fft, hop)(spectra.real, spectra.imag)
    torch.testing.assert_close(found, waves, atol=2e-6, rtol=0)


def test_the_generator_is_its_spectra_inverted() -> None:
    """Where the last layer gives one bin at each frame, the sound is a sine: of two thirds of the magnitude.

    The rest would be that of its two neighbors, into which Hann windows spread a sine.
    """
    generator = ISTFTGenerator((2, 512), n_fft=64, hop=16, widths=(4, 4, 6))
    torch.nn.init.zeros_(generator.last.weight)
    bias = torch.full((2, 2, 32), -8.0)  # magnitudes and phases of two channels
    bias[0, 0, 3], bias[0, 1, 7], bias[1] = 1.5, 1.5, 0.0  # bins 4 and 8
    generator.last.bias.data = bias.flatten()
    waves = generator(torch.randn(3, 64)).detach()
    assert waves.shape == (3, 2, 512) and torch.equal(waves[0], waves[1])
    for channel, hertz in enumerate((500.0, 1_000.0)):
        assert tone_errors(waves[:, channel], (hertz,), 8_000)[0].max() < 0.01
    expected = math.tanh(math.exp(4 * 1.5 - 7) * 2 / 3)
    assert waves[..., 64:-64].amax(2).flatten().tolist() == pytest.approx([expected] * 6, rel=0.02)


def test_options_that_do_not_fit_are_named() -> None:
    refuses(lambda: ISTFTGenerator((1, 1_000)), r"2048 samples or a multiple.*\[1, 1000\]")
    refuses(lambda: ISTFTGenerator((1, 8, 8)), r"\[1, 8, 8\]")
    refuses(lambda: InverseSTFT(96, 15), "n_fft 96 and hop 15")
    refuses(lambda: InverseSTFT(100, 16), "n_fft 100 and hop 16")
    refuses(lambda: InverseSTFT(16, 16), "two times it or more")
