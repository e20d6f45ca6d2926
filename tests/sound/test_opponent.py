"""The model that a GAN has to beat has the statistics that it claims, and lacks what it cannot have."""

from __future__ import annotations

import torch
from sound.opponent import filtered_noise

from litgan.sound import Tones


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
