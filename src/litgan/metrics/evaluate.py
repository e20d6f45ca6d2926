"""Compares a generator's samples with a data set."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import torch.distributed
from torch import Tensor, nn

from litgan.memory import AutoBatchSize
from litgan.metrics.codes import codebook_use
from litgan.metrics.distances import (
    float64_device,
    frechet_from_moments,
    kernel_distance,
    prdc,
    precision_recall,
)
from litgan.metrics.extractors import Classifier, FeatureExtractor, load_extractor
from litgan.metrics.statistics import (
    FeatureStats,
    cache_path,
    extract_features,
    load_stats,
    save_stats,
)

MINIMUM = 6  # samples a side: density and coverage need five neighbors


class EvalData(Protocol):
    """The part of `litgan.data.GANDataModule` that `evaluate` needs.

    If there are several splits, `fingerprint_of(split)` is the hash of one.
    """

    @property
    def fingerprint(self) -> str:
        """Hash of the data set."""

    def size(self, split: str = "train") -> int:
        """Samples in a split."""

    def real_batches(
        self, count: int, *, batch_size: int = 250, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Batches `rank`, `rank + world_size`, ... of a fixed choice of `count` samples in [-1, 1]."""


@dataclass(frozen=True)
class Report:
    """Metrics and how they were measured. The caller adds to `protocol` what only it knows (EMA)."""

    values: dict[str, float]  # log key -> value
    protocol: dict[str, Any]
    classes: dict[str, list[float]] = field(default_factory=dict)  # name -> one value per class

    def record(self) -> dict[str, Any]:
        """One dictionary for JSON."""
        return {**self.values, **self.classes, "protocol": self.protocol}


@torch.no_grad()
def evaluate(
    sample: Callable[[int, int], Tensor],
    data: EvalData,
    extractor: str | FeatureExtractor,
    *,
    count: int,
    real_count: int | Literal["all"] | None = None,
    labels: Callable[[int, int], Tensor | None] = lambda first, count: None,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
    split: str = "train",
    neighbours_count: int = 5000,
    pairs: bool = False,
    pair_metrics: Sequence[nn.Module] = (),
    generator: nn.Module | None = None,
    cache_dir: str | Path | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Report:
    """Fréchet and kernel distance, precision, recall, density and coverage, and the extractor's own metrics.

    With several ranks, all of them call this function, each generates its share of the samples, and all
    return the report of a single rank. The Fréchet distance uses all samples, the others the first
    `neighbours_count`. Batches too large for the device's memory are halved.

    Args:
        sample: `sample(first, count)` returns the fakes of the global indices `first` to
            `first + count`, [count, *sample_shape] in [-1, 1].
        extractor: a name of `litgan.metrics.extractors.EXTRACTORS`, or an extractor; it moves to `device`.
        count: fakes.
        real_count: reals; "all" of the split, as published FIDs have it; None for `count` of them, or as many
            as the split holds.
        labels: `labels(first, count)` returns the classes of these fakes; None without classes.
        batch_size: samples generated and extracted together, at most.
        neighbours_count: samples a side whose features are kept for the distances between pairs.
        pairs: fake i is made for the condition of real i of `data.real_batches`: compare these two as well,
            of the first `neighbours_count`, by `FeatureExtractor.pair_metrics` and by the mean distance of
            their features, `metric/paired_<extractor>`.
        pair_metrics: further ones, such as `litgan.metrics.LPIPS`: each has a `name`, is called with `real=`
            and `fake=` and returns one value a pair.
        generator: the network that `sample` draws from; of a tokenizer `metric/perplexity` says how many of
            its codes these samples used, all equally.
        cache_dir: folder of the real statistics; None is $LITGAN_CACHE, else ~/.cache/litgan.

    Raises:
        ValueError: too few samples on a side, more reals than the split holds, unknown extractor, samples of
            a shape that the extractor does not take, samples that are not finite.
        RuntimeError: several ranks, but no process group.
    """
    if world_size > 1 and not torch.distributed.is_initialized():
        raise RuntimeError(f"{world_size} ranks cannot add up their samples: start a process group first.")
    real_count = choose_real_count(real_count, count, data.size(split), split)
    neighbours_count = min(neighbours_count, count)  # as many on both sides
    sizes = {"count": count, "real samples": real_count, "neighbours_count": neighbours_count}
    for name, size in sizes.items():
        if size < MINIMUM:
            raise ValueError(f"{size} is too small for {name}: the metrics need at least {MINIMUM} a side.")
    device = torch.device(device)
    share: dict[str, Any] = {"batch_size": batch_size, "rank": rank, "world_size": world_size}
    extractor = load_extractor(extractor).to(device)
    extractor.setup(data)
    options: dict[str, Any] = {
        "extractor": extractor,
        "neighbours_count": neighbours_count,
        "device": device,
        **share,
    }
    fingerprint = _fingerprint(data, split, rank, world_size)
    path = cache_path(
        cache_dir, extractor, data=fingerprint, split=split, count=real_count,
        neighbours_count=min(neighbours_count, real_count),
    )  # fmt: skip
    real = load_stats(path, device=device, rank=rank, world_size=world_size)
    if real is None:
        real = extract_features(data.real_batches(real_count, split=split, **share), **options)
        if rank == 0:
            save_stats(path, real)
    paired = min(neighbours_count, real_count) if pairs else 0
    means = PairMeans(extractor, device, pair_metrics)
    partners = data.real_batches(paired, split=split, **share) if paired else iter(())
    fakes = means.comparing(fake_batches(sample, labels, count, **share), partners)
    with codebook_use(generator) as use:
        fake = extract_features(fakes, **options)
    protocol = {
        **extractor.protocol(), "real_count": real.count, "fake_count": fake.count,
        "neighbours_count": neighbours_count, "split": split, "data": fingerprint,
    }  # fmt: skip
    extras = extractor.extra_metrics(real=real.extras, fake=fake.extras, data=data)
    values = _distances(extractor.name, real, fake) | {f"metric/{name}": extras[name] for name in extras}
    values |= use.compute(world_size)
    if paired:
        values |= means.compute(world_size)
        protocol["pairs"] = paired
    class_values, classes = _class_metrics(extractor, real, fake)
    return Report(values | class_values, protocol, classes)


def choose_real_count(wanted: int | Literal["all"] | None, count: int, available: int, split: str) -> int:
    """How many reals to take of those available (sys.maxsize of a stream); ValueError if they are too few."""
    if wanted is None:
        return min(count, available)
    if wanted == "all" and available < sys.maxsize:
        return available
    if wanted == "all" or wanted > available:
        held = "no end" if available == sys.maxsize else f"{available} samples"
        raise ValueError(
            f"real_count is {wanted}, but the split {split!r} has {held}: give a smaller number."
        )
    return wanted


def fake_batches(
    sample: Callable[[int, int], Tensor], labels: Callable[[int, int], Tensor | None], count: int, *,
    batch_size: int, rank: int, world_size: int,
) -> Iterator[tuple[Tensor, Tensor | None]]:  # fmt: skip
    """This rank's batches of `count` fakes and their classes."""
    in_parts = AutoBatchSize()
    for first in range(rank * batch_size, count, world_size * batch_size):
        size = min(batch_size, count - first)
        samples = in_parts(lambda at, part: sample(first + at, part), size)  # noqa: B023
        yield samples, labels(first, size)


class PairMeans:
    """Means of metrics over the pairs of all ranks.

    Args:
        extractor: whose features and `pair_metrics` compare the two of a pair.
        device: on which ranks add up.
        metrics: further ones; see `evaluate`.
    """

    def __init__(
        self, extractor: FeatureExtractor, device: torch.device, metrics: Sequence[nn.Module] = ()
    ) -> None:
        self.metrics = [metric.to(device) for metric in metrics]
        self.extractor, self.device, self.in_parts = extractor, device, AutoBatchSize()
        self.home = float64_device(device)
        self.sums: dict[str, Tensor] = {}
        self.count = torch.zeros((), dtype=torch.float64, device=self.home)

    def comparing(
        self, fakes: Iterator[tuple[Tensor, Tensor | None]], reals: Iterator[tuple[Tensor, Tensor | None]]
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """The batches of fakes; adds the pairs of the first ones and as many of reals."""
        for samples, labels in fakes:
            if (partner := next(reals, None)) is not None:
                fake = samples[: len(partner[0])].to(self.device)
                self.update(real=partner[0].to(self.device), fake=fake)
            yield samples, labels

    def update(self, *, real: Tensor, fake: Tensor) -> None:
        """Adds pairs [N, *sample_shape]."""

        def distances(at: int, size: int) -> Tensor:
            ours, theirs = (self.extractor(side[at : at + size]) for side in (fake, real))
            return (ours - theirs).norm(dim=1)

        values = self.extractor.pair_metrics(real=real, fake=fake)
        values[f"paired_{self.extractor.name}"] = self.in_parts(distances, len(real))
        for metric in self.metrics:
            values[str(metric.name)] = self.in_parts(
                lambda at, size: metric(real=real[at : at + size], fake=fake[at : at + size]),  # noqa: B023
                len(real),
            )
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0) + value.to(self.home).double().sum()
        self.count += len(real)

    def compute(self, world_size: int) -> dict[str, float]:
        """metric/<name> -> mean. All ranks call this function."""
        names = sorted(self.sums)
        if world_size > 1:
            found: list[list[str]] = [[] for _ in range(world_size)]
            torch.distributed.all_gather_object(found, names)
            names = max(found, key=len)  # a rank may have no pair
        zero = torch.zeros_like(self.count)
        totals = torch.stack([self.count, *(self.sums.get(name, zero) for name in names)])
        if world_size > 1:
            torch.distributed.all_reduce(totals)
        count, *sums = totals.tolist()
        return {f"metric/{name}": total / count for name, total in zip(names, sums, strict=True)}


def _fingerprint(data: EvalData, split: str, rank: int, world_size: int) -> str:
    """That of rank zero, as the others need not look at all files for it."""
    of_split = getattr(data, "fingerprint_of", None)
    if of_split is None:
        return data.fingerprint
    found = [of_split(split) if rank == 0 else ""]
    if world_size > 1:
        torch.distributed.broadcast_object_list(found)
    return found[0]


def _distances(name: str, real: FeatureStats, fake: FeatureStats) -> dict[str, float]:
    frechet = "metric/fid" if name == "inception" else f"metric/fd_{name}"
    precision, recall, density, coverage = prdc(real=real.features, fake=fake.features)
    values = {
        frechet: frechet_from_moments(real=real, fake=fake),
        "metric/kid": kernel_distance(real=real.features, fake=fake.features),
        "metric/precision": precision,
        "metric/recall": recall,
        "metric/density": density,
        "metric/coverage": coverage,
    }
    return {key: value.item() for key, value in values.items()}


def _class_metrics(
    extractor: FeatureExtractor, real: FeatureStats, fake: FeatureStats
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Scalars, and lists of one value per class."""
    values: dict[str, float] = {}
    classes: dict[str, list[float]] = {}
    conditional = len(fake.labels) and len(real.labels)
    if conditional:
        pairs = [_of_class(label, real, fake) for label in range(int(fake.labels.max()) + 1)]
        classes["class_precision"], classes["class_recall"] = (
            [*column] for column in zip(*pairs, strict=True)
        )
        known = [recall for recall in classes["class_recall"] if recall == recall]  # not NaN
        values |= {"metric/min_class_recall": min(known)} if known else {}
    if isinstance(extractor, Classifier):
        predicted = extractor.classify(fake.features)
        counts = predicted.bincount(minlength=extractor.head.out_features)
        classes["class_histogram"] = (counts / len(predicted)).tolist()
        if conditional:
            values["metric/class_accuracy"] = (predicted == fake.labels).double().mean().item()
    return values, classes


def _of_class(label: int, real: FeatureStats, fake: FeatureStats) -> tuple[float, float]:
    """Precision and recall within one class; NaN if a side has too few samples of it."""
    reals, fakes = real.features[real.labels == label], fake.features[fake.labels == label]
    if min(len(reals), len(fakes)) < MINIMUM:
        return float("nan"), float("nan")
    precision, recall = precision_recall(real=reals, fake=fakes)
    return precision.item(), recall.item()
