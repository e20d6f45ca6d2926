"""The evaluation: its numbers, its cache, its ranks. Run as a script, this file is one of those ranks."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from litgan.metrics import statistics
from litgan.metrics.distances import density_coverage, frechet_distance, kernel_distance, precision_recall
from litgan.metrics.evaluate import Report, evaluate
from litgan.metrics.extractors import FeatureExtractor, load_extractor
from litgan.metrics.statistics import FeatureBank, FeatureMoments, Portions


class Pixels(FeatureExtractor):
    """Looks at the pixels themselves, and counts the samples it was shown."""

    name, size, dimension, resize, digest = "pixels", 4, 16, "none", "0"

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def features(self, samples: Tensor) -> Tensor:
        self.seen += len(samples)
        return samples.flatten(1)


class Reals:
    """A data set in memory that follows the contract of `GANDataModule.real_batches`."""

    def __init__(self, samples: Tensor, fingerprint: str = "f00d") -> None:
        self.samples, self.fingerprint = samples, fingerprint

    def size(self, split: str = "train") -> int:
        return len(self.samples)

    def real_batches(self, count, *, batch_size=250, split="train", rank=0, world_size=1):
        for batch in self.samples[:count].split(batch_size)[rank::world_size]:
            yield batch, None


def drawn(count: int, size: int = 4, *, seed: int, spread: float = 0.3) -> Tensor:
    noise = torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return (spread * noise).clamp(-1, 1)


def generator_of(samples: Tensor) -> Callable[[int, int], Tensor]:
    return lambda first, count: samples[first : first + count]


@pytest.fixture
def measure(tmp_path):
    """`evaluate` of 60 fakes against 80 reals, with a cache of its own."""
    reals, fakes = Reals(drawn(80, seed=1)), drawn(60, seed=2, spread=0.25)

    def run(**changes) -> Report:
        options = {"count": 60, "batch_size": 25, "cache_dir": tmp_path / "cache"} | changes
        extractor, data = options.pop("extractor", Pixels()), options.pop("data", reals)
        return evaluate(options.pop("sample", generator_of(fakes)), data, extractor, **options)

    run.reals, run.fakes = reals.samples[:60].flatten(1), fakes.flatten(1)
    return run


def test_values_are_those_of_the_pure_functions(measure):
    sides = {"real": measure.reals, "fake": measure.fakes}
    precision, recall = precision_recall(**sides)
    density, coverage = density_coverage(**sides)
    expected = {
        "metric/fd_pixels": frechet_distance(**sides).item(),
        "metric/kid": kernel_distance(**sides).item(),
        "metric/precision": precision.item(),
        "metric/recall": recall.item(),
        "metric/density": density.item(),
        "metric/coverage": coverage.item(),
    }
    report = measure()
    assert report.values == pytest.approx(expected, rel=1e-9)
    assert list(report.values) == list(expected)
    assert 0 < report.values["metric/recall"] < report.values["metric/precision"] < 1


def test_the_report_says_how_it_was_measured(measure):
    report = measure()
    assert report.protocol == {
        "extractor": "pixels",
        "digest": "0",
        "resize": "4 x 4, none",
        "dtype": "float32",
        "real_count": 60,
        "fake_count": 60,
        "neighbours_count": 60,
        "split": "train",
        "data": "f00d",
    }
    assert json.loads(json.dumps(report.record())) == report.values | {"protocol": report.protocol}


def test_more_fakes_than_reals(measure):
    data = Reals(drawn(20, seed=1))
    report = measure(data=data)
    assert (report.protocol["real_count"], report.protocol["fake_count"]) == (20, 60)
    expected = frechet_distance(real=data.samples.flatten(1), fake=measure.fakes).item()
    assert report.values["metric/fd_pixels"] == pytest.approx(expected, rel=1e-9)


def test_the_bank_is_bounded_and_the_moments_are_not(measure):
    report = measure(neighbours_count=30)
    sides = {"real": measure.reals, "fake": measure.fakes}
    first = {side: features[:30] for side, features in sides.items()}
    assert report.values["metric/fd_pixels"] == pytest.approx(frechet_distance(**sides).item(), rel=1e-9)
    assert report.values["metric/kid"] == pytest.approx(kernel_distance(**first).item(), rel=1e-9)
    assert report.protocol["neighbours_count"] == 30


def test_inception_reports_a_fid(measure):
    extractor = Pixels()
    extractor.name = "inception"
    assert measure(extractor=extractor).values["metric/fid"] == measure().values["metric/fd_pixels"]


def test_a_classifier_reports_the_shares_of_its_classes(tmp_path):
    extractor, fakes = load_extractor("digits"), drawn(40, 8, seed=3, spread=0.8)
    report = evaluate(
        generator_of(fakes), Reals(drawn(40, 8, seed=4)), extractor, count=40, cache_dir=tmp_path
    )
    expected = extractor.classify(fakes).bincount(minlength=10) / 40
    assert report.record()["class_histogram"] == report.classes["class_histogram"]
    assert report.classes["class_histogram"] == pytest.approx(expected.tolist())


def test_reals_are_seen_once(measure):
    extractor = Pixels()
    first = measure(extractor=extractor)
    assert extractor.seen == 120
    assert measure(extractor=extractor) == first
    assert extractor.seen == 180  # only the fakes again


def refused(samples: Tensor) -> Tensor:
    """What the allocator answers to a batch that is too large: it is asked for 4 exbibytes."""
    return torch.empty(2**60)


class Greedy(Pixels):
    """Has memory for so many samples and no more; notes what it was asked to look at."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.asked = room, []

    def features(self, samples: Tensor) -> Tensor:
        self.asked.append(len(samples))
        return super().features(samples) if len(samples) <= self.room else refused(samples)


def test_a_batch_too_large_for_the_memory_is_halved_once_and_for_all(measure):
    extractor = Greedy(7)
    assert measure(extractor=extractor, batch_size=30) == measure(extractor=Pixels(), batch_size=30)
    batch = [*[4] * 7, 2]
    assert extractor.asked == 2 * [30, 15, 8, *batch, *batch], "each side finds out for itself"


def test_samples_too_large_for_the_memory_are_drawn_in_halves(measure):
    asked = []

    def sample(first: int, count: int) -> Tensor:
        asked.append((first, count))
        return (
            measure.fakes.view(-1, 1, 4, 4)[first : first + count] if count <= 10 else refused(measure.fakes)
        )

    assert measure(sample=sample) == measure()
    assert asked[:4] == [(0, 25), (0, 13), (0, 7), (7, 7)]
    assert max(count for _, count in asked[2:]) == 7


def test_a_sample_that_does_not_fit_alone_is_the_allocators_error(measure):
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        measure(extractor=Greedy(0))


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    calls = []

    def broken(start: int, size: int) -> Tensor:
        calls.append(size)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        Portions()(broken, 8)
    assert calls == [8]


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 40},
        {"split": "test"},
        {"neighbours_count": 30},
        {"data": Reals(drawn(80, seed=1), fingerprint="beef")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_real_sides_are_not_mistaken_for_the_cached_one(measure, changes):
    extractor = Pixels()
    measure()
    count = changes.get("count", 60)
    measure(extractor=extractor, **changes)
    assert extractor.seen == 2 * count


def test_another_extractor_has_a_cache_of_its_own(measure):
    measure()
    extractor = Pixels()
    extractor.digest = "1"
    measure(extractor=extractor)
    assert extractor.seen == 120


def test_a_flipped_bit_in_the_cache_never_reaches_a_distance(measure, tmp_path):
    first = measure()
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    draw = random.Random(0)
    anywhere = [draw.randrange(len(content)) for _ in range(60)]
    for at in [*range(8), *range(8, header, 7), *anywhere]:  # in the length of the header, in it, in numbers
        damaged = bytearray(content)
        damaged[at] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        extractor = Pixels()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert measure(extractor=extractor) == first, f"byte {at}"
        if extractor.seen == 120:  # it was computed anew
            assert str(path) in str(told[0].message) and path.read_bytes() == content
        else:  # the bit was in the padding of the header
            assert extractor.seen == 60 and damaged[at] in b" \t\n\r" and 8 <= at < header


@pytest.mark.parametrize("damage", ["truncated", "emptied", "of other tensors"])
def test_a_damaged_cache_is_computed_anew(measure, tmp_path, damage):
    first = measure()
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    others = statistics.save({"unrelated": torch.zeros(2)})
    path.write_bytes({"truncated": content[:-9], "emptied": b"", "of other tensors": others}[damage])
    with pytest.warns(UserWarning, match=r"is unreadable .* computed anew"):
        assert measure() == first
    assert path.read_bytes() == content


def test_the_cache_is_written_whole_or_not_at_all(measure, tmp_path, monkeypatch):
    def interrupted(path: Path, target: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.warns(UserWarning, match=r"not cached \(No space left on device\)"):
        first = measure()
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.undo()
    assert measure() == first


def test_the_cache_folder_follows_the_environment(measure, tmp_path, monkeypatch):
    monkeypatch.setenv("LITGAN_CACHE", str(tmp_path / "elsewhere"))
    measure(cache_dir=None)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_a_mean_far_from_zero_costs_no_digits():
    features = torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e6
    moments = FeatureMoments(6, shift=features[0])
    for batch in features.split(64):
        moments.update(batch)
    torch.testing.assert_close(moments.compute().covariance, features.T.cov(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moments.compute().mean, features.mean(0))


def test_streams_carry_no_extractor_and_nothing_for_a_checkpoint():
    assert not FeatureMoments(4).state_dict() and not FeatureBank().state_dict()


def test_the_generator_keeps_its_autocast_and_the_numbers_keep_theirs(measure):
    dtypes = []

    def sample(first: int, count: int) -> Tensor:
        dtypes.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        return measure.fakes[first : first + count].view(-1, 1, 4, 4)

    calm = measure()
    with torch.autocast("cpu", torch.bfloat16):
        assert measure(sample=sample) == calm
    assert set(dtypes) == {torch.bfloat16}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"count": 5}, "5 is too small for count: the metrics need at least 6 a side"),
        ({"data": Reals(drawn(3, seed=1))}, "3 is too small for real samples"),
        ({"neighbours_count": 2}, "2 is too small for neighbours_count"),
        ({"sample": lambda first, count: torch.full((count, 1, 4, 4), torch.nan)}, "hold NaN or infinity"),
        ({"sample": lambda first, count: torch.zeros(count, 2)}, r"looks at images .* not at \[25, 2\]"),
        ({"extractor": "nobody"}, "No feature extractor 'nobody'"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(measure, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        measure(**changes)


def test_ranks_without_a_process_group_are_refused(measure):
    with pytest.raises(RuntimeError, match="2 ranks cannot add up their samples"):
        measure(rank=0, world_size=2)


COUNTS = (70, 15)  # the second leaves the second rank without a batch


def measure_as_rank(rank: int, world_size: int, folder: Path) -> list[dict[str, float]]:
    """Each count twice: then the first rank finds the real side in its cache, the second, alone, does not."""
    reals, fakes = Reals(drawn(80, 8, seed=1)), drawn(80, 8, seed=2)
    ranks = {"rank": rank, "world_size": world_size, "cache_dir": folder / str(rank)}
    return [
        evaluate(generator_of(fakes), reals, "digits", count=count, batch_size=20, **ranks).values
        for count in COUNTS
        for _ in range(2)
    ]


@pytest.mark.spawn  # two more processes import torch
def test_two_ranks_measure_what_one_does(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    alone = measure_as_rank(0, 1, tmp_path / "alone")
    for rank in range(2):
        together = json.loads((tmp_path / f"{rank}.json").read_text())
        for ours, expected in zip(together, alone, strict=True):
            assert ours == pytest.approx(expected, rel=1e-6)


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    (folder / f"{rank}.json").write_text(json.dumps(measure_as_rank(rank, 2, folder)))
    torch.distributed.destroy_process_group()


class Labelled(Reals):
    """Reals of two classes, in turn."""

    def real_batches(self, count, **options):
        labels = torch.arange(len(self.samples)) % 2
        own = iter(labels[:count].split(options["batch_size"])[options["rank"] :: options["world_size"]])
        return ((batch, next(own)) for batch, _ in super().real_batches(count, **options))


def test_precision_and_recall_within_each_class_that_was_asked_for(tmp_path):
    """Of class 0 the fakes are good, of class 1 they are all alike."""
    reals, fakes = drawn(80, seed=1), drawn(60, seed=2)
    fakes[1::2] = fakes[1] + 1e-4 * drawn(30, seed=3)
    report = evaluate(
        generator_of(fakes), Labelled(reals), Pixels(), count=60, cache_dir=tmp_path, batch_size=16,
        labels=lambda first, count: torch.arange(first, first + count) % 2,
    )  # fmt: skip
    for label in (0, 1):
        sides = {"real": reals[:60][label::2].flatten(1), "fake": fakes[label::2].flatten(1)}
        precision, recall = (value.item() for value in precision_recall(**sides))
        assert report.classes["class_recall"][label] == pytest.approx(recall)
        assert report.classes["class_precision"][label] == pytest.approx(precision)
    assert report.values["metric/min_class_recall"] == min(report.classes["class_recall"])
    assert report.classes["class_recall"][0] > 0.5 > report.classes["class_recall"][1]


def test_a_classifier_tells_how_often_it_sees_the_class_that_was_asked_for(tmp_path):
    extractor, fakes = load_extractor("digits"), drawn(40, 8, seed=3, spread=0.8)
    seen, asked = extractor.classify(fakes), torch.arange(40) % 10
    report = evaluate(
        generator_of(fakes), Labelled(drawn(40, 8, seed=4)), extractor, count=40, cache_dir=tmp_path,
        labels=lambda first, count: asked[first : first + count],
    )  # fmt: skip
    assert report.values["metric/class_accuracy"] == pytest.approx((seen == asked).double().mean().item())
    assert "metric/class_accuracy" not in evaluate(
        generator_of(fakes), Reals(drawn(40, 8, seed=4)), extractor, count=40, cache_dir=tmp_path
    ).values  # fmt: skip
