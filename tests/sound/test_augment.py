"""Each transform of sounds does what it says, alone and with its probability."""

from __future__ import annotations

import math

import pytest
import torch

from litgan.noise import Noise
from litgan.sound import SoundAugment
from litgan.sound.tones import tone_errors

LENGTH, RATE = 4_096, 8_000
POLICY = ("gain", "polarity", "pitch", "filter", "shift", "noise")


def sines(count: int = 64, channels: int = 1, hertz: float = 500.0) -> torch.Tensor:
    wave = 0.5 * torch.sin(2 * math.pi * hertz / RATE * torch.arange(LENGTH))
    return wave.expand(count, channels, -1).contiguous()


def changed(augment: SoundAugment, samples: torch.Tensor, first: int = 0) -> torch.Tensor:
    return augment(samples, Noise(0, 0, first, len(samples), "test").uniform(augment.num_uniforms))


def rms(waves: torch.Tensor) -> torch.Tensor:
    return waves.square().mean((1, 2)).sqrt()


def test_without_probability_nothing_changes() -> None:
    samples = torch.randn(8, 2, 100)
    assert torch.equal(changed(SoundAugment(p=0), samples), samples)


@pytest.mark.parametrize("name", POLICY)
def test_a_transform_changes_the_share_of_sounds_that_p_says(name: str) -> None:
    samples = sines(1_000)[..., :256].contiguous()
    share = (changed(SoundAugment(p=0.3, policy=[name]), samples) != samples).flatten(1).any(1).float().mean()
    assert share.item() == pytest.approx(0.15 if name == "polarity" else 0.3, abs=0.04)


@pytest.mark.parametrize("channels", [1, 2])
def test_each_sound_changes_by_its_own_draws_alone(channels: int) -> None:
    augment, samples = SoundAugment(p=0.7), torch.randn(8, channels, 512)
    whole = changed(augment, samples)
    halves = [changed(augment, samples[k : k + 4], first=k) for k in (0, 4)]
    torch.testing.assert_close(torch.cat(halves), whole)
    assert not torch.equal(changed(augment, samples, first=64), whole)


def test_gain_is_at_most_0_and_at_least_minus_12_db() -> None:
    found = 20 * (rms(changed(SoundAugment(1, ["gain"]), sines(500))) / rms(sines(500))).log10()
    assert -12 <= found.min() < -11.5 and -0.5 < found.max() <= 0
    assert found.mean().item() == pytest.approx(-6, abs=0.5)


def test_polarity_is_the_sign() -> None:
    found = changed(SoundAugment(1, ["polarity"]), sines(500))
    signs = (found / sines(500))[..., 1]
    torch.testing.assert_close(found, sines(500) * signs[..., None])
    assert signs.abs().unique().tolist() == [1] and abs(signs.mean()) < 0.1


def test_pitch_changes_by_at_most_a_whole_tone() -> None:
    found = changed(SoundAugment(1, ["pitch"]), sines(300))[:, 0]
    hertz = (
        torch.fft.rfft(found * torch.hann_window(LENGTH), 8 * LENGTH).abs().argmax(1) / (8 * LENGTH) * RATE
    )
    tones = 6 * (hertz / 500).log2()
    assert tones.abs().max() < 1.05 and tones.std().item() == pytest.approx(1 / math.sqrt(3), abs=0.06)


def test_a_filter_changes_levels_and_not_frequencies() -> None:
    for hertz in (100.0, 1_000.0):
        found = changed(SoundAugment(1, ["filter"]), sines(400, hertz=hertz))
        assert tone_errors(found[:, 0], (hertz,), RATE)[0].max() < 0.02
        level = 20 * (rms(found) / rms(sines(1))).log10()
        assert abs(level.mean()) < 1 and 3 < level.std() < 6.5, "6 dB at a corner, less between two"


def test_a_shift_moves_silence_in() -> None:
    samples = torch.rand(300, 2, 160) + 1
    found = changed(SoundAugment(1, ["shift"]), samples)
    silent = (found == 0).sum(2)
    assert torch.equal(silent[:, 0], silent[:, 1]) and silent.max() == 10 and silent.min() == 0
    late = found[:, 0, 0] == 0
    for one, before, count, delayed in zip(found, samples, silent[:, 0].tolist(), late.tolist(), strict=True):
        kept = (
            (one[:, count:], before[:, : 160 - count])
            if delayed
            else (one[:, : 160 - count], before[:, count:])
        )
        assert torch.equal(*kept)
    assert 0.4 < late.float().mean() < 0.6


def test_the_noise_floor_is_white_and_quiet() -> None:
    floor = changed(SoundAugment(1, ["noise"]), torch.zeros(200, 2, LENGTH))
    level = 20 * rms(floor).log10()
    assert -70.5 < level.min() < -68 and -42 < level.max() < -39.5
    normed = floor / rms(floor)[:, None, None]
    power = torch.fft.rfft(normed).abs().square().mean((0, 1))[1:-1].view(-1, 89).mean(1) / LENGTH
    assert (power - 1).abs().max() < 0.08
    assert (normed[:, 0] * normed[:, 1]).mean(1).abs().max() < 0.1, "of each channel another"


def test_the_gradient_and_its_own_gradient_come_back_to_every_sound() -> None:
    augment, samples = SoundAugment(p=1), torch.randn(2, 1, 40, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(changed(augment, samples).pow(3).sum(), samples, create_graph=True)
    assert (slope != 0).float().mean() > 0.8
    slope.square().sum().backward()
    assert samples.grad.flatten(1).abs().amax(1).gt(0).all() and samples.grad.isfinite().all()
    uniforms = Noise(0, 0, 0, 2, "test").uniform(augment.num_uniforms)
    assert torch.autograd.gradcheck(lambda x: augment(x, uniforms), (samples.detach().requires_grad_(),))


def test_its_probability_adapts_if_there_is_a_target() -> None:
    for target, p in ((None, 0.5), (0.6, 0.6)):
        augment = SoundAugment(0.5, target=target, interval=1, images=100)
        augment.update_statistics(torch.ones(8, 1))
        augment.update_p(1, 10)
        assert augment.logs()["augmentation/p"].item() == pytest.approx(p)


def test_what_it_cannot_change_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sounds \[B, C, T\], not \[2, 5\]: leave model\.augment out"):
        changed(SoundAugment(), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="no policy 'reverb': give any of gain"):
        SoundAugment(policy=["reverb"])
