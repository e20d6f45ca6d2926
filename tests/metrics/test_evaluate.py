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
from safetensors.torch import save
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from litgan.metrics.distances import density_coverage, frechet_distance, kernel_distance, precision_recall
from litgan.metrics.evaluate import Report, evaluate
from litgan.metrics.extractors import FeatureExtractor, load_extractor
from litgan.metrics.statistics import extract_features


class Pixels(FeatureExtractor):
    """The pixels, `offset` away from zero; counts its samples."""

    name, size, dimension, resize, digest = "pixels", 4, 16, "none", "0"

    def __init__(self, offset: float = 0) -> None:
        super().__init__()
        self.offset, self.count = offset, 0

    def features(self, samples: Tensor) -> Tensor:
        self.count += len(samples)
        return samples.flatten(1) + self.offset

    def extras(self, samples: Tensor) -> Tensor:
        assert len(samples), "an extractor need not take an empty batch"
        return super().extras(samples)


class Reals:
    """A data set in memory; with `labels`, its classes take turns."""

    def __init__(self, samples: Tensor, fingerprint: str = "f00d", labels: int = 0) -> None:
        self.samples, self.fingerprint, self.labels = samples, fingerprint, labels

    def size(self, split: str = "train") -> int:
        return len(self.samples)

    def real_batches(self, count, *, batch_size=250, split="train", rank=0, world_size=1):
        for first in range(rank * batch_size, count, world_size * batch_size):
            chosen = torch.arange(first, min(first + batch_size, count))
            yield self.samples[chosen], chosen % self.labels if self.labels else None


class Endless(Reals):
    """A stream."""

    def size(self, split: str = "train") -> int:
        return sys.maxsize


def drawn(count: int, size: int = 4, *, seed: int, scale: float = 0.3) -> Tensor:
    noise = torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return (scale * noise).clamp(-1, 1)


def generator_of(samples: Tensor) -> Callable[[int, int], Tensor]:
    return lambda first, count: samples[first : first + count]


@pytest.fixture
def measure(tmp_path):
    """`evaluate` of 60 fakes against 80 reals, with a cache of its own."""
    reals, fakes = Reals(drawn(80, seed=1)), drawn(60, seed=2, scale=0.25)

    def run(**changes) -> Report:
        options = {"count": 60, "batch_size": 25, "cache_dir": tmp_path / "cache"} | changes
        extractor, data = options.pop("extractor", Pixels()), options.pop("data", reals)
        return evaluate(options.pop("sample", generator_of(fakes)), data, extractor, **options)

    run.sides = {"real": reals.samples[:60].flatten(1), "fake": fakes.flatten(1)}
    return run


def test_values_are_those_of_the_pure_functions(measure):
    precision, recall = precision_recall(**measure.sides)
    density, coverage = density_coverage(**measure.sides)
    expected = {
        "metric/fd_pixels": frechet_distance(**measure.sides),
        "metric/kid": kernel_distance(**measure.sides),
        "metric/precision": precision,
        "metric/recall": recall,
        "metric/density": density,
        "metric/coverage": coverage,
    }
    report = measure()
    assert report.values == pytest.approx({key: value.item() for key, value in expected.items()}, rel=1e-9)
    assert list(report.values) == list(expected)
    assert 0 < report.values["metric/recall"] < report.values["metric/precision"] < 1
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
    extractor = Pixels()
    extractor.name = "inception"
    assert measure(extractor=extractor).values["metric/fid"] == report.values["metric/fd_pixels"]


def test_fewer_reals_and_fewer_neighbors(measure):
    data = Reals(drawn(20, seed=1))
    report = measure(data=data)
    assert (report.protocol["real_count"], report.protocol["fake_count"]) == (20, 60)
    expected = frechet_distance(real=data.samples.flatten(1), fake=measure.sides["fake"]).item()
    assert report.values["metric/fd_pixels"] == pytest.approx(expected, rel=1e-9)
    report = measure(neighbours_count=30)
    first = {side: features[:30] for side, features in measure.sides.items()}
    assert report.values["metric/fd_pixels"] == pytest.approx(frechet_distance(**measure.sides).item())
    assert report.values["metric/kid"] == pytest.approx(kernel_distance(**first).item(), rel=1e-9)
    assert report.protocol["neighbours_count"] == 30


@pytest.mark.parametrize(("wanted", "count"), [("all", 80), (70, 70), (20, 20), (None, 60)])
def test_reals_have_a_count_of_their_own(measure, wanted, count):
    """fid50k_full of StyleGAN2-ADA: 50,000 fakes against all reals."""
    report = measure(real_count=wanted)
    assert (report.protocol["real_count"], report.protocol["fake_count"]) == (count, 60)
    sides = {"real": drawn(80, seed=1)[:count].flatten(1), "fake": measure.sides["fake"]}
    expected = frechet_distance(**sides).item()
    assert report.values["metric/fd_pixels"] == pytest.approx(expected, rel=1e-9)
    precision, _ = precision_recall(real=sides["real"][:60], fake=sides["fake"])  # never more than fakes
    assert report.values["metric/precision"] == pytest.approx(precision.item())


def test_a_mean_far_from_zero_costs_no_digits(measure):
    sides = {side: features + 1e4 for side, features in measure.sides.items()}
    found = measure(extractor=Pixels(1e4)).values["metric/fd_pixels"]
    assert found == pytest.approx(frechet_distance(**sides).item(), rel=1e-10)


def test_a_classifier_counts_classes_and_compares_them_with_the_requested_ones(tmp_path):
    extractor, fakes = load_extractor("digits"), drawn(40, 8, seed=3, scale=0.8)
    predicted, requested = extractor.classify(extractor(fakes)), torch.arange(40) % 10
    labels = {"labels": lambda first, count: requested[first : first + count]}
    for data, options in ((Reals(drawn(40, 8, seed=4)), {}), (Reals(drawn(40, 8, seed=4), labels=2), labels)):
        report = evaluate(
            generator_of(fakes), data, extractor, count=40, cache_dir=tmp_path / str(data.labels), **options
        )
        expected = predicted.bincount(minlength=10) / 40
        assert report.record()["class_histogram"] == pytest.approx(expected.tolist())
        assert ("metric/class_accuracy" in report.values) == bool(options)
    accuracy = (predicted == requested).double().mean().item()
    assert report.values["metric/class_accuracy"] == pytest.approx(accuracy)


def test_precision_and_recall_within_each_requested_class(tmp_path):
    """Fakes of class 0 are good, those of class 1 all alike; of class 2 there are too few."""
    reals, fakes = drawn(80, seed=1), drawn(60, seed=2)
    fakes[1::2] = fakes[1] + 1e-4 * drawn(30, seed=3)
    requested = torch.arange(60) % 2
    requested[58:] = 2
    report = evaluate(
        generator_of(fakes), Reals(reals, labels=2), Pixels(), count=60, cache_dir=tmp_path, batch_size=16,
        labels=lambda first, count: requested[first : first + count],
    )  # fmt: skip
    for label in (0, 1):
        sides = {"real": reals[:60][label::2].flatten(1), "fake": fakes[:58][label::2].flatten(1)}
        precision, recall = (value.item() for value in precision_recall(**sides))
        assert report.classes["class_recall"][label] == pytest.approx(recall)
        assert report.classes["class_precision"][label] == pytest.approx(precision)
    good, poor, unknown = report.classes["class_recall"]
    assert good > 0.5 > poor == report.values["metric/min_class_recall"] and unknown != unknown


# -- memory


def too_large(samples: Tensor) -> Tensor:
    """Asks the allocator for 4 exbibytes."""
    return torch.empty(2**60)


class Limited(Pixels):
    """Has memory for so many samples; records the sizes of all batches."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.sizes = limit, []

    def features(self, samples: Tensor) -> Tensor:
        self.sizes.append(len(samples))
        return super().features(samples) if len(samples) <= self.limit else too_large(samples)


def test_a_batch_too_large_for_the_memory_is_halved_once_and_for_all(measure):
    extractor = Limited(7)
    assert measure(extractor=extractor, batch_size=30) == measure(batch_size=30)
    batch = [*[4] * 7, 2]
    assert extractor.sizes == 2 * [30, 15, 8, *batch, *batch]
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        measure(extractor=Limited(0))


def test_samples_too_large_for_the_memory_are_generated_in_parts(measure):
    ranges = []

    def sample(first: int, count: int) -> Tensor:
        ranges.append((first, count))
        fakes = measure.sides["fake"].view(-1, 1, 4, 4)
        return fakes[first : first + count] if count <= 10 else too_large(fakes)

    assert measure(sample=sample) == measure()
    assert ranges[:4] == [(0, 25), (0, 13), (0, 7), (7, 7)]
    assert max(count for _, count in ranges[2:]) == 7


# -- cache


def changed_digest() -> Pixels:
    extractor = Pixels()
    extractor.digest = "1"
    return extractor


@pytest.mark.parametrize(
    ("changes", "hit"),
    [
        ({}, True),
        ({"batch_size": 7}, True),
        ({"count": 40}, False),
        ({"split": "test"}, False),
        ({"neighbours_count": 30}, False),
        ({"real_count": "all"}, False),
        ({"data": Reals(drawn(80, seed=1), fingerprint="beef")}, False),
        ({"extractor": changed_digest()}, False),
    ],
)
def test_real_features_are_extracted_once_for_each_key(measure, changes, hit):
    first, extractor = measure(), changes.pop("extractor", Pixels())
    again = measure(extractor=extractor, **changes)
    reals = 80 if changes.get("real_count") == "all" else changes.get("count", 60)
    assert extractor.count == changes.get("count", 60) + (0 if hit else reals)
    assert not hit or again.values == pytest.approx(first.values, rel=1e-12)


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
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert measure(extractor=extractor) == first, f"byte {at}"
        if extractor.count == 120:  # computed anew
            assert str(path) in str(caught[0].message) and path.read_bytes() == content
        else:  # the bit was in the padding of the header
            assert extractor.count == 60 and damaged[at] in b" \t\n\r" and 8 <= at < header


@pytest.mark.parametrize("damage", ["truncated", "emptied", "of other tensors"])
def test_a_damaged_cache_is_computed_anew(measure, tmp_path, damage):
    first = measure()
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    others = save({"unrelated": torch.zeros(2)})
    path.write_bytes({"truncated": content[:-9], "emptied": b"", "of other tensors": others}[damage])
    with pytest.warns(UserWarning, match=r"is unreadable .* computed anew"):
        assert measure() == first
    assert path.read_bytes() == content


def test_the_cache_is_written_completely_or_not_at_all(measure, tmp_path, monkeypatch):
    def interrupted(path: Path, target: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setenv("LITGAN_CACHE", str(tmp_path / "elsewhere"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", interrupted)
        with pytest.warns(UserWarning, match=r"not cached .*No space left"):
            first = measure(cache_dir=None)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert measure(cache_dir=None) == first
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


# -- input


def test_autocast_affects_the_generator_and_no_number(measure):
    dtypes = []

    def sample(first: int, count: int) -> Tensor:
        dtypes.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
        return measure.sides["fake"][first : first + count].view(-1, 1, 4, 4)

    expected = measure()
    with torch.autocast("cpu", torch.bfloat16):
        assert measure(sample=sample) == expected
    assert set(dtypes) == {torch.bfloat16}


@pytest.mark.parametrize(
    ("changes", "culprit"),
    [
        ({"count": 5}, "5 is too small for count"),
        ({"data": Reals(drawn(3, seed=1))}, "3 is too small for real samples"),
        ({"real_count": 81}, "real_count is 81, .* 80 samples"),
        ({"real_count": "all", "data": Endless(drawn(80, seed=1))}, "real_count is all, .* no end"),
        ({"neighbours_count": 2}, "2 is too small for neighbours_count"),
        ({"sample": lambda first, count: torch.full((count, 1, 4, 4), torch.nan)}, "NaN or infinity"),
        ({"sample": lambda first, count: torch.zeros(count, 2)}, r"not \[25, 2\]"),
        ({"extractor": "nobody"}, "'nobody'"),
        ({"rank": 0, "world_size": 2}, "2 ranks .* process group"),
    ],
)
def test_bad_input_is_rejected(measure, changes, culprit):
    with pytest.raises((ValueError, RuntimeError), match=culprit):
        measure(**changes)


# -- ranks


class Far(Pixels):
    dimension, extras_size, extras_dtype = 64, 3, torch.bool

    def __init__(self) -> None:
        super().__init__(offset=1e4)

    def extras(self, samples: Tensor) -> Tensor:
        return samples.flatten(1)[:, :3] > 0

    def extra_metrics(self, *, real: Tensor, fake: Tensor, data: object) -> dict[str, float]:
        return {"real": real.double().mean().item(), "fake": fake.double().mean().item()}


CASES = ((70, "digits"), (15, "digits"), (70, Far()))  # of 15 the second rank has no batch


def measure_as_rank(rank: int, world_size: int, folder: Path) -> list[dict[str, float]]:
    """Each case twice: then the first rank finds the real statistics and sends them to the second.

    At last with samples that are not finite on one rank: all ranks have to fail.
    """
    reals, fakes = Reals(drawn(80, 8, seed=1)), drawn(80, 8, seed=2)
    ranks = {"rank": rank, "world_size": world_size, "cache_dir": folder / str(rank), "batch_size": 20}
    values = [
        evaluate(generator_of(fakes), reals, extractor, count=count, **ranks).values
        for count, extractor in CASES
        for _ in range(2)
    ]
    far = CASES[-1][1]
    assert isinstance(far, Far) and far.count == 3 * (70 if world_size == 1 else 40 if rank == 0 else 30)
    fakes[25] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        evaluate(generator_of(fakes), reals, "digits", count=70, **ranks)
    return values


@pytest.mark.spawn  # two more processes import torch
def test_two_ranks_measure_what_one_does(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    ranks = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    alone = measure_as_rank(0, 1, tmp_path / "alone")
    for values in alone[-2:]:
        del values["metric/kid"]  # its cubic kernel has no digits left so far from zero
    for rank in range(2):
        together = json.loads((tmp_path / f"{rank}.json").read_text())
        for found, expected in zip(together, alone, strict=True):
            assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-6)


class Allocated(TorchDispatchMode):
    """Adds up the bytes of all results."""

    bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        self.bytes += sum(part.nbytes for part in tree_leaves(result) if isinstance(part, Tensor))
        return result


def test_the_memory_of_a_measurement_does_not_depend_on_the_number_of_ranks():
    """One rank of many that are not there: their sums are zero."""
    taken = []
    for world_size in (2, 256):
        torch.distributed.init_process_group("fake", rank=0, world_size=world_size, store=FakeStore())
        options = {"device": torch.device("cpu"), "rank": 0, "world_size": world_size}
        with Allocated() as allocated:
            stats = extract_features(
                [(drawn(40, seed=1), torch.arange(40))],
                Pixels(),
                neighbours_count=30,
                batch_size=40,
                **options,
            )
        assert stats.features.shape == (30, 16) and stats.count == 40
        taken.append(allocated.bytes)
        torch.distributed.destroy_process_group()
    assert taken[1] - taken[0] < 64 * 256, "a few numbers a rank"


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
    )
    (folder / f"{rank}.json").write_text(json.dumps(measure_as_rank(rank, 2, folder)))
    torch.distributed.destroy_process_group()
