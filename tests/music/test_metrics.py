"""Statistics of piano rolls, each compared with an explicit count or another library."""

from __future__ import annotations

import math

import pytest
import torch

from litgan.metrics import evaluate
from litgan.music import MusicStatistics, Scales
from litgan.music.metrics import (
    DURATION_BINS,
    HISTOGRAMS,
    MAX_INTERVAL,
    durations,
    in_scale,
    intervals,
    longest_copies,
    repetition,
)
from litgan.music.midi import sounding_and_onsets
from litgan.music.rolls import to_piano_roll
from litgan.noise import torch_generator

TUNE = [(0, 0, 4, 0), (0, 4, 8, 0), (0, 8, 10, 4), (0, 12, 16, 2), (1, 0, 16, 7), (1, 4, 8, 12)]


def roll(notes: list = TUNE, shape: tuple[int, ...] = (2, 16, 24)) -> torch.Tensor:
    return torch.from_numpy(to_piano_roll(notes, 0, shape)).float()[None]


def groups(features: torch.Tensor) -> dict[str, torch.Tensor]:
    """The normalized histograms of one sample."""
    scale = MusicStatistics.dimension / len(HISTOGRAMS)
    parts = (features[0].square() / scale).split(list(HISTOGRAMS.values()))
    return dict(zip(HISTOGRAMS, parts, strict=True))


def noise(count: int, density: float = 0.05, name: str = "") -> torch.Tensor:
    return (torch.rand(count, 2, 16, 24, generator=torch_generator("rolls", name)) < density).float()


def test_features_equal_the_counts_of_a_tune() -> None:
    extractor = MusicStatistics()
    features = extractor(roll())
    assert features.shape == (1, extractor.dimension) and features.dtype == torch.float32
    found = groups(features)
    for part in found.values():
        assert part.sum().item() == pytest.approx(1, abs=1e-5)
    # Steps that sound: c 8 + 4 (the octave above is another pitch of it), d 4, e 2, g 16.
    expected = torch.zeros(12)
    expected[[0, 2, 4, 7]] = torch.tensor([12.0, 4, 2, 16]) / 34
    torch.testing.assert_close(found["pitch_classes"], expected)
    # Track 0: c c e d, track 1: g c' (its highest line).
    expected = torch.zeros(2 * MAX_INTERVAL + 1)
    expected[[MAX_INTERVAL, MAX_INTERVAL + 4, MAX_INTERVAL - 2, MAX_INTERVAL + 5]] = 0.25
    torch.testing.assert_close(found["intervals"], expected)
    lengths = {2: 1, 4: 4, 16: 1}
    expected = torch.tensor([lengths.get(length, 0) / 6 for length in DURATION_BINS])
    torch.testing.assert_close(found["durations"], expected)
    expected = torch.zeros(16)
    expected[[0, 4, 8, 12]] = torch.tensor([2.0, 2, 1, 1]) / 6
    torch.testing.assert_close(found["onsets"], expected)
    # Above the bass: c with g (8 steps, of which 4 with c'), e with g (2), g alone (2), d with g (4).
    expected = torch.zeros(12)
    expected[[0, 7, 3, 5]] = torch.tensor([8 + 4 + 2 + 2 + 4, 8.0, 2, 4]) / 34
    torch.testing.assert_close(found["bass_intervals"], expected)
    assert sorted(found["pitch_class_pairs"][found["pitch_class_pairs"] > 0].tolist()) == pytest.approx(
        [2 / 14, 4 / 14, 8 / 14]
    )
    expected = torch.zeros(9)
    expected[[1, 2, 3]] = torch.tensor([2.0, 10, 4]) / 16
    torch.testing.assert_close(found["polyphony"], expected)
    lower, higher = (roll([(t, a, b, row + by) for t, a, b, row in TUNE], (2, 16, 48)) for by in (0, 24))
    torch.testing.assert_close(extractor(lower), extractor(higher))


def test_features_of_silence_are_finite_and_every_feature_can_be_nonzero() -> None:
    extractor = MusicStatistics()
    silent = extractor(torch.zeros(2, 2, 16, 24))
    assert silent.isfinite().all() and groups(silent)["polyphony"][0] == pytest.approx(1)
    busy = torch.cat([extractor(noise(400, density)) for density in (0.01, 0.1, 0.3)])
    long = extractor(torch.cat([roll([(0, 0, length, 3)], (2, 64, 24)) for length in (8, 12, 16, 40)]))
    assert (torch.cat([busy, long]).amax(0) > 0).all()
    assert 0.3 < busy.square().mean() < 1.5, "about one on average"


def test_durations_by_hand_on_random_rolls() -> None:
    sounding, onset = sounding_and_onsets(noise(20, 0.4).bool())
    found = durations(sounding, onset)
    for sample, track, step, row in onset.nonzero()[::7].tolist():
        later = slice(step + 1, None)
        holds = sounding[sample, track, later, row] & ~onset[sample, track, later, row]
        assert found[sample, track, step, row] == 1 + holds.int().cumprod(0).sum()
    assert (found > 0).equal(onset)


def test_intervals_by_hand_on_random_rolls() -> None:
    sounding, onset = sounding_and_onsets(noise(30, 0.05).bool())
    expected = torch.zeros(30, 2 * MAX_INTERVAL + 1)
    for sample in range(30):
        for track in range(2):
            before = None
            for step in range(16):
                rows = sounding[sample, track, step].nonzero().flatten().tolist()
                if rows and onset[sample, track, step, rows[-1]]:
                    if before is not None:
                        leap = max(-MAX_INTERVAL, min(MAX_INTERVAL, rows[-1] - before))
                        expected[sample, leap + MAX_INTERVAL] += 1
                    before = rows[-1]
    assert torch.equal(intervals(sounding, onset), expected) and expected.sum() > 100


def test_the_best_scale_is_found_in_any_key() -> None:
    major = [(0, 2 * k, 2 * k + 2, row) for k, row in enumerate((0, 2, 4, 5, 7, 9, 11, 12))]
    minor = [(0, 2 * k, 2 * k + 2, row) for k, row in enumerate((0, 2, 3, 5, 7, 8, 11, 12))]
    for scale in (major, minor):
        for tonic in range(12):
            moved = [(t, a, b, row + tonic) for t, a, b, row in scale]
            assert in_scale(roll(moved).bool()) == 1.0
    chromatic = roll([(0, k, k + 1, k) for k in range(12)])
    assert in_scale(chromatic.bool()) == pytest.approx(7 / 12)
    assert in_scale(torch.cat([chromatic, roll(major), 0 * chromatic]).bool()) == pytest.approx(19 / 24)
    assert in_scale(0 * chromatic.bool()) == 0.0


def test_repetition_finds_copies_in_any_key_and_nothing_else() -> None:
    training = noise(700)
    training[..., 20:] = 0
    copies = training[[3, 650]].roll(4, -1)
    almost = training[[9]].clone()
    cells = almost.nonzero()
    almost[tuple(cells[-1])] = 0  # one cell of about forty
    half = training[[12]].clone()
    half[:, 1] = 0
    fake = torch.cat([copies, almost, half, noise(4, name="others")])
    assert repetition(fake.bool(), training.to(torch.uint8)) == 3 / 8


def test_longest_copies_are_stretches_of_one_training_roll_in_any_key() -> None:
    training = noise(700)
    training[..., 20:] = 0
    training[:, :, :, 0] = 1  # a lowest note in every step
    moved = training[[3]].roll(2, -1)
    cut = training[[650]].clone()
    cut[:, 0, 5, 10:14] = 1 - cut[:, 0, 5, 10:14]  # 5 steps before, 10 after
    climbing = training[[9]].clone()
    climbing[:, :, 7:] = climbing[:, :, 7:].roll(1, -1)  # 7 steps, then 9 in another key
    joined = torch.cat([training[[1], :, :8], training[[2], :, 8:]], 2)
    fake = torch.cat([moved, cut, climbing, joined])
    assert longest_copies(fake.bool(), training.to(torch.uint8)).tolist() == [16, 10, 9, 8]
    assert longest_copies(noise(4, name="others").bool(), training.to(torch.uint8)).max() == 0


def test_the_metrics_separate_music_from_noise() -> None:
    data = Scales(samples=300)

    def table(samples: torch.Tensor) -> dict[str, float]:
        report = evaluate(
            lambda first, count: samples[first : first + count], data, MusicStatistics(), count=300
        )
        return {key.removeprefix("metric/"): value for key, value in report.values.items()}

    real, copied = data.load("test")[0].float(), data.load()[0].float()
    good, bad, copied = table(real), table(noise(300)), table(copied)
    for metric in ("fd_music", "pitch_class_js", "interval_js", "duration_js"):
        assert 0 <= copied[metric] <= good[metric] + 1e-9 and 5 * good[metric] < bad[metric], metric
    assert (good["in_scale"], copied["in_scale"]) == (1.0, 1.0) and bad["in_scale"] < 0.85
    assert copied["repetition"] == 1.0 and good["repetition"] < 0.1 and bad["repetition"] == 0
    assert copied["longest_copy"] == 16 > good["longest_copy"] > bad["longest_copy"]
    assert 1.6 < good["polyphony"] <= 2 and good["empty_bars"] == 0
    assert bad["polyphony"] == pytest.approx(2 * 24 * 0.05, rel=0.15)
    quiet = torch.zeros(300, 2, 16, 24)
    quiet[:, 0, :8, 3] = 1  # one of two bars, one of two tracks
    values = table(quiet)
    assert values["empty_bars"] == 0.75 and values["polyphony"] == 0.5
    assert all(math.isfinite(value) for value in values.values())


def test_extras_contain_the_rolls() -> None:
    extractor, rolls = MusicStatistics(), noise(5)
    extras = extractor.extras(rolls)
    assert extras.shape == (5, extractor.extras_size) and extras.dtype == torch.uint8
    data = Scales(samples=20)
    same = extractor.extra_metrics(real=extras, fake=extras, data=data)
    assert same["interval_js"] == 0 and same["pitch_class_js"] == pytest.approx(0, abs=1e-12)
    expected = sounding_and_onsets(rolls.bool())[0].any(1).sum(2).double().mean().item()
    assert same["polyphony"] == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 128, 128), (2, 16, 24)])
def test_samples_of_other_media_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="'music'"):
        MusicStatistics()(torch.zeros(shape))
