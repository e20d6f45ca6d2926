"""The differences that the sound extractor measures, and those that it does not."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from litgan.metrics import evaluate
from litgan.noise import Noise
from litgan.sound import Sound, SoundStatistics, Tones
from litgan.sound.metrics import BANDS, SEGMENTS, envelope, histogram
from litgan.sound.signals import hz_to_mel, mu_law_encode


@pytest.fixture(scope="module")
def extractor() -> SoundStatistics:
    return SoundStatistics()


def sine(frequency: float, length: int = 8_192, rate: int = 16_000) -> torch.Tensor:
    return torch.sin(2 * math.pi * frequency * torch.arange(length) / rate).view(1, 1, -1)


@pytest.mark.parametrize("length", [16, 500, 4_096, 16_384])
def test_features_at_any_length(extractor: SoundStatistics, length: int) -> None:
    waves = (torch.randn(3, 1, length) / 4).requires_grad_()
    features = extractor(waves)
    assert features.shape == (3, extractor.dimension) and features.dtype == torch.float32
    assert features.isfinite().all() and extractor.extras(waves).shape == (3, extractor.extras_size)
    torch.testing.assert_close(features, torch.cat([SoundStatistics()(one[None]) for one in waves]))
    assert extractor.digest == SoundStatistics().digest
    features.sum().backward()
    assert waves.grad is not None and waves.grad.any(), "gradients reach the samples"


def test_a_tone_is_loudest_in_its_own_band(extractor: SoundStatistics) -> None:
    places = torch.linspace(*hz_to_mel(torch.tensor([30.0, 8_000.0])).tolist(), BANDS + 2)[1:-1]
    for frequency in (300.0, 1_000.0, 5_000.0):
        means = extractor(sine(frequency))[0, :BANDS]
        assert abs(means.argmax() - (places - hz_to_mel(torch.tensor(frequency))).abs().argmin()) <= 1


def test_levels_are_decades(extractor: SoundStatistics) -> None:
    full, tenth = extractor(sine(1_000.0))[0], extractor(0.1 * sine(1_000.0))[0]
    loudest = full[:BANDS].argmax()
    assert (full - tenth)[loudest].item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close((full - tenth)[2 * BANDS :], torch.ones(SEGMENTS))
    silent = extractor(torch.zeros(1, 1, 4_096))[0]
    assert silent.unique().tolist() == [-4, 0], "80 dB below full scale, without variation"


def test_the_spread_over_time_is_that_of_a_sound_that_comes_and_goes(extractor: SoundStatistics) -> None:
    steady = sine(1_000.0, 16_384)
    halted = steady.clone()
    halted[..., 8_192:] = 0
    spread = slice(BANDS, 2 * BANDS)
    band = extractor(steady)[0, :BANDS].argmax()
    assert extractor(steady)[0, spread][band] < 0.1
    assert extractor(halted)[0, spread][band] > 1


def test_the_envelope_is_the_root_mean_square_of_each_part() -> None:
    waves = torch.ones(1, 160)
    waves[:, 80:] = 0.01
    expected = torch.tensor([[0.0] * 8 + [-2.0] * 8])
    torch.testing.assert_close(envelope(waves), expected, rtol=0, atol=1e-5)


def test_centroid_and_flatness_of_what_is_known(extractor: SoundStatistics) -> None:
    noise = torch.randn(1, 1, 16_384, generator=torch.Generator().manual_seed(0)) / 4
    tone, white = extractor.extras(sine(2_000.0))[0], extractor.extras(noise)[0]
    assert tone[0].item() == pytest.approx(0.25, abs=0.01), "of the Nyquist frequency"
    assert white[0].item() == pytest.approx(0.5, abs=0.02)
    assert white[1] > -0.5 > -35 > tone[1], "dB: noise is flat, a tone is not"


def test_histogram() -> None:
    values = torch.tensor([-9.0, 0.0, 0.99, 1.0, 11.9, 12.0, 99.0])
    assert histogram(values, 0.0, 12.0).tolist() == [3, 1, *[0] * 9, 3]


def test_each_extra_metric_measures_one_property(extractor: SoundStatistics) -> None:
    data = Sound(length=8_192)
    time = torch.arange(8_192) / 1_000
    fall = time * torch.exp(1 - time)  # without a click, also backwards
    tones = torch.cat([fall * sine(frequency) for frequency in torch.linspace(200, 3_000, 40).tolist()])
    noise = fall * torch.randn(40, 1, 8_192, generator=torch.Generator().manual_seed(0)) / 4
    noise = noise * tones.square().mean().sqrt() / noise.square().mean().sqrt()

    def table(fake: torch.Tensor) -> dict[str, float]:
        return extractor.extra_metrics(real=extractor.extras(tones), fake=extractor.extras(fake), data=data)

    assert table(tones.flip(0)) == {"centroid_js": 0.0, "envelope_js": 0.0, "flatness_js": 0.0}
    values = table(noise)
    assert values["flatness_js"] > 0.9 and values["centroid_js"] > 0.3 and values["envelope_js"] < 0.1
    values = table(tones.flip(2))
    assert values["envelope_js"] > 0.5 and values["centroid_js"] < 0.05 and values["flatness_js"] < 0.05


def test_other_media_are_rejected(extractor: SoundStatistics) -> None:
    for shape in ((2, 1, 8, 8), (2, 3, 64), (2, 1, 8), (2, 2)):
        with pytest.raises(ValueError, match="'sound'"):
            extractor(torch.zeros(shape))


def test_evaluation_of_held_out_tones_and_of_noise(extractor: SoundStatistics) -> None:
    data = Tones(samples=64)
    real, _ = data.load("test")
    noise = Noise(0, 0, 0, 64).normal(1, 1_024) / 4
    good, bad = (
        evaluate(lambda first, count: side[first : first + count], data, extractor, count=64).values  # noqa: B023
        for side in (data.encode(real), noise)
    )
    assert good["metric/fd_sound"] < 0.05 and good["metric/coverage"] > 0.8
    assert max(good[f"metric/{name}_js"] for name in ("centroid", "envelope", "flatness")) < 0.15
    assert bad["metric/fd_sound"] > 10 and bad["metric/flatness_js"] > 0.9 and bad["metric/precision"] == 0


def test_mu_law_changes_no_metric(tmp_path: Path) -> None:
    plain, encoded = Tones(samples=64), Tones(samples=64, mu_law=255)
    made = plain.decode(Noise(0, 0, 0, 64).normal(1, 1_024) / 4).waves[:, None]
    found = [
        evaluate(
            lambda first, count: data.encode(made[first : first + count]), data, SoundStatistics(),  # noqa: B023
            count=64, cache_dir=tmp_path / str(data.mu_law),
        ).values
        for data in (plain, encoded)
    ]  # fmt: skip
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_the_metrics_of_pairs_of_a_softer_sound_are_closed_forms() -> None:
    """At any mu-law: amplitudes are compared, not what networks get."""
    waves = torch.randn(3, 1, 4_096, generator=torch.Generator().manual_seed(0)) / 4
    for mu in (0.0, 255.0):
        extractor = SoundStatistics()
        extractor.mu_law = mu
        real, fake = (mu_law_encode(side, mu) for side in (waves, waves / 2))
        found = extractor.pair_metrics(real=real, fake=fake)
        assert {name: value.shape for name, value in found.items()} == dict.fromkeys(
            ("l1", "stft", "mel_l1"), (3,)
        )
        torch.testing.assert_close(found["mel_l1"], torch.full((3,), math.log(2)), rtol=1e-3, atol=0)
        torch.testing.assert_close(found["stft"], torch.full((3,), 0.5 + math.log(2)), rtol=1e-2, atol=0)
        assert all(value.max() == 0 for value in extractor.pair_metrics(real=real, fake=real).values())
