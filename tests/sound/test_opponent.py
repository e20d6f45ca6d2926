"""The model that a GAN has to beat has the statistics that it claims, and lacks what it cannot have."""

from __future__ import annotations

import math

import pytest
import torch
from sound.griffin_lim import griffin_lim
from sound.opponent import changed_sounds, filtered_noise

from litgan.sound import MelSpectrogram, Tones, mel_l1
from litgan.sound.tones import tone_errors


def test_filtered_noise_has_the_spectrum_and_the_envelope_of_the_data() -> None:
    data = Tones(samples=200, frequencies=(300.0, 1_200.0), decay=(0.6, 0.6))
    waves = data.encode(data.load()[0])[:, 0]
    noise = filtered_noise(data, 1_000, 0)
    assert noise.shape == (1_000, *data.sample_shape)
    torch.testing.assert_close(noise.abs().amax(2), torch.ones(1_000, 1))
    noise = noise[:, 0]

    def bands(waves: torch.Tensor) -> torch.Tensor:
        """Shares of power in 32 bands of 62.5 Hz."""
        power = torch.fft.rfft(waves).abs().square().mean(0)[:512].view(32, 16).sum(1)
        return power / power.sum()

    def levels(waves: torch.Tensor) -> torch.Tensor:
        """Shares of a sound's power in eighths of its time, in dB."""
        power = waves.view(-1, 8, 128).square().sum(2)
        return 10 * (power / power.sum(1, keepdim=True)).mean(0).log10()

    torch.testing.assert_close(bands(noise), bands(waves), atol=0.03, rtol=0)
    assert levels(waves)[0] - levels(waves)[-1] > 20
    torch.testing.assert_close(levels(noise), levels(waves), atol=1.5, rtol=0)


def test_changed_sounds_have_other_pitches_within_a_tone_and_begin_within_5_ms() -> None:
    data = Tones(samples=200, frequencies=(400.0,), decay=(0.6, 0.6))
    made = changed_sounds(data, 500, 0)
    assert made.shape == (500, *data.sample_shape) and torch.equal(made, changed_sounds(data, 500, 0))
    torch.testing.assert_close(made.abs().amax(2), torch.ones(500, 1))
    spectra = torch.fft.rfft(made[:, 0], 8 * data.length).abs()
    found = 12 * (spectra.argmax(1) * data.sample_rate / (8 * data.length) / 400).log2()  # semitones
    assert found.abs().max() < 2.3 and found.std().item() == pytest.approx(2 / 3**0.5, abs=0.2)


def test_griffin_lim_finds_sounds_with_these_spectrograms_at_their_time_and_pitch() -> None:
    """Decaying noise, whose wave is lost, and a decaying tone."""
    mel, time = MelSpectrogram(8_000, 256, 64, 256, 40), torch.arange(4_096)
    noise = torch.randn(4, 1, 4_096, generator=torch.Generator().manual_seed(0)) / 4
    tone = torch.sin(2 * math.pi * 1_200 * time / 8_000).expand(1, 1, -1)
    real = torch.cat([noise, tone]) * torch.exp(-time / 400)
    fake = griffin_lim(mel(real), mel)
    assert fake.shape == real.shape and torch.equal(fake, griffin_lim(mel(real), mel))
    away = {shift: mel_l1(real=real, fake=fake.roll(shift, 2), mel=mel) for shift in (-16, 0, 16)}
    assert (away[0] < 0.2).all() and (away[0] < torch.minimum(away[-16], away[16])).all()
    assert (fake[:4] * real[:4]).sum().abs() < 0.5 * real[:4].square().sum()
    assert tone_errors(fake[4], (1_200.0,), 8_000)[0] < 0.02
