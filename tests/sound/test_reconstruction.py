"""Distances between real and generated waves, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from litgan.penalties import Context
from litgan.sound import MelL1, MelSpectrogram, MultiResolutionSTFT, mel_l1, multi_resolution_stft

RESOLUTIONS = ((256, 64, 200), (128, 32, 128))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 4


@pytest.mark.parametrize("gain", [0.5, 2.0, -0.1])
def test_a_gain_has_a_closed_form(gain: float) -> None:
    """|1 - |g|| and |ln |g||, at each resolution; the sign of a wave is not heard."""
    real = noise(2, 1, 4_096)
    found = multi_resolution_stft(real=real, fake=gain * real)
    expected = abs(1 - abs(gain)) + abs(math.log(abs(gain)))
    torch.testing.assert_close(found, torch.full((2,), expected), rtol=1e-2, atol=0)
    assert multi_resolution_stft(real=real, fake=real).tolist() == [0, 0]
    pytest.importorskip("torchaudio")
    found = mel_l1(real=real, fake=gain * real, mel=MelSpectrogram(8_000, 256, 64, 256, 32))
    torch.testing.assert_close(found, torch.full((2,), abs(math.log(abs(gain)))), rtol=1e-2, atol=0)


def test_it_is_that_of_two_loops_over_spectra() -> None:
    """One sample and one resolution at a time, in double precision and with the formula's norms."""
    real, fake = noise(3, 1, 1_000).double(), noise(3, 1, 1_000, seed=1).double()
    expected = []
    for r, f in zip(real[:, 0], fake[:, 0], strict=True):
        each = []
        for n_fft, hop, size in RESOLUTIONS:
            window = torch.zeros(n_fft, dtype=torch.float64)
            start = (n_fft - size) // 2
            window[start : start + size] = torch.hann_window(size, dtype=torch.float64)
            pair = []
            for wave in (r, f):
                padded = nn.functional.pad(wave, (n_fft // 2, n_fft // 2))
                frames = padded.unfold(0, n_fft, hop)[: -(-1_000 // hop)]
                pair.append(torch.fft.rfft(frames * window).abs() * 2 / window.sum())
            a, b = (magnitudes.clamp_min(1e-4) for magnitudes in pair)
            each.append((a - b).norm() / a.norm() + (a.log() - b.log()).abs().mean())
        expected.append(sum(each) / len(each))
    found = multi_resolution_stft(real=real, fake=fake, resolutions=RESOLUTIONS)
    torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("length", [40, 777])
def test_any_length_and_silence_have_finite_gradients(length: int) -> None:
    fake = noise(2, 2, length).requires_grad_()
    for real in (noise(2, 2, length, seed=1), torch.zeros(2, 2, length)):
        found = multi_resolution_stft(real=real, fake=fake)
        (gradient,) = torch.autograd.grad(found.sum(), fake)
        assert found.shape == (2,) and found.isfinite().all() and gradient.isfinite().all() and gradient.any()


def test_the_terms_are_the_distances_and_their_gradient_leads_to_the_sound() -> None:
    """A wave that starts as noise comes near to a tone's magnitudes."""
    pytest.importorskip("torchaudio")
    real = (torch.sin(torch.arange(1_024) * 0.5) / 2).view(1, 1, -1)
    mel = MelSpectrogram(8_000, 256, 64, 256, 32)
    terms = [MultiResolutionSTFT(resolutions=RESOLUTIONS), MelL1(mel)]
    assert [(term.name, term.weight) for term in terms] == [("stft", 1.0), ("mel", 45.0)]
    for term, distance in (
        (terms[0], lambda **pair: multi_resolution_stft(**pair, resolutions=RESOLUTIONS)),
        (terms[1], lambda **pair: mel_l1(**pair, mel=mel)),
    ):
        fake = noise(1, 1, 1_024).requires_grad_()
        adam, first = torch.optim.Adam([fake], lr=0.02), distance(real=real, fake=fake).item()
        for _ in range(60):
            adam.zero_grad()
            context = Context(nn.Identity(), nn.Identity(), real=real, fake=fake)
            value = term(context)
            value.sum().backward()
            adam.step()
        assert value.shape == (1,)
        assert distance(real=real, fake=fake).item() < 0.7 * first
