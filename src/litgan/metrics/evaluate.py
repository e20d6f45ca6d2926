"""Measures a generator against a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from litgan.metrics.distances import (
    frechet_from_moments,
    kernel_distance,
    prdc,
    precision_recall,
)
from litgan.metrics.extractors import Classifier, FeatureExtractor, load_extractor
from litgan.metrics.statistics import FeatureStream, Portions, RealSide, Statistics, real_statistics

MINIMUM = 6  # samples a side: density and coverage look at five neighbours


@dataclass(frozen=True)
class Report:
    """Metrics, and what they were measured with. The caller adds to `protocol` what it alone knows (EMA)."""

    values: dict[str, float]  # log key -> value
    protocol: dict[str, Any]
    classes: dict[str, list[float]] = field(default_factory=dict)  # a list over the classes for each name

    def record(self) -> dict[str, Any]:
        """One dictionary for JSON."""
        return {**self.values, **self.classes, "protocol": self.protocol}


@torch.no_grad()
def evaluate(
    sample: Callable[[int, int], Tensor],
    data: RealSide,
    extractor: str | FeatureExtractor,
    *,
    count: int,
    labels: Callable[[int, int], Tensor | None] = lambda first, count: None,
    batch_size: int = 250,
    device: torch.device | str = "cpu",
    split: str = "train",
    neighbours_count: int = 5000,
    cache_dir: str | Path | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Report:
    """Fréchet and kernel distance, precision, recall, density and coverage, and the medium's own metrics.

    With several ranks each of them calls this, draws its share, and returns the same report as one rank
    would. The Fréchet distance sees all samples, the others the first `neighbours_count`. Batches that do
    not fit into the device's memory are halved until they do.

    Args:
        sample: `sample(first, count)` gives the fakes with the global indices `first` to
            `first + count`, [count, *sample_shape] in [-1, 1].
        data: the real side.
        extractor: a name of `litgan.metrics.extractors.EXTRACTORS`, or an extractor; it moves to `device`.
        count: fakes; and reals, or as many as the split holds.
        labels: `labels(first, count)` tells the classes that `sample` was asked for; None without classes.
        batch_size: samples drawn and looked at together, at most.
        neighbours_count: samples a side whose features are kept for the distances between pairs.
        cache_dir: folder of the real statistics; None is $LITGAN_CACHE, else ~/.cache/litgan.

    Raises:
        ValueError: too few samples on a side, unknown extractor, data of another medium, samples that
            are not finite.
        RuntimeError: several ranks, but no process group.
    """
    reals = min(count, data.size(split))
    for what, number in (("count", count), ("real samples", reals), ("neighbours_count", neighbours_count)):
        if number < MINIMUM:
            raise ValueError(f"{number} is too small for {what}: the metrics need at least {MINIMUM} a side.")
    if world_size > 1 and not torch.distributed.is_initialized():
        raise RuntimeError(f"{world_size} ranks cannot add up their samples: start a process group first.")
    extractor = load_extractor(extractor).to(device)
    extractor.setup(data)
    stream = FeatureStream(extractor, batch_size, neighbours_count, torch.device(device), rank, world_size)
    real = real_statistics(stream, data, count=reals, split=split, cache_dir=cache_dir)
    portions = Portions()
    fakes = (
        (
            portions(lambda start, size: sample(first + start, size), min(batch_size, count - first)),  # noqa: B023
            labels(first, min(batch_size, count - first)),
        )
        for first in range(rank * batch_size, count, world_size * batch_size)
    )
    fake = stream.collect(fakes, shift=real.moments.mean)
    protocol = {
        **extractor.protocol(),
        "real_count": real.moments.count,
        "fake_count": fake.moments.count,
        "neighbours_count": min(neighbours_count, count),
        "split": split,
        "data": data.fingerprint,
    }
    table = extractor.extra_metrics(real=real.extras, fake=fake.extras, data=data)
    obeyed, classes = _of_classes(extractor, real, fake)
    values = _distances(extractor.name, real, fake) | {
        f"metric/{name}": value for name, value in table.items()
    }
    return Report(values | obeyed, protocol, classes)


def _distances(name: str, real: Statistics, fake: Statistics) -> dict[str, float]:
    frechet = "metric/fid" if name == "inception" else f"metric/fd_{name}"
    precision, recall, density, coverage = prdc(real=real.bank, fake=fake.bank)
    values = {
        frechet: frechet_from_moments(real=real.moments, fake=fake.moments),
        "metric/kid": kernel_distance(real=real.bank, fake=fake.bank),
        "metric/precision": precision,
        "metric/recall": recall,
        "metric/density": density,
        "metric/coverage": coverage,
    }
    return {key: value.item() for key, value in values.items()}


def _of_classes(
    extractor: FeatureExtractor, real: Statistics, fake: Statistics
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """How well a conditional GAN plays its classes, and each class by itself; nothing without classes."""
    classes = _shares(extractor, fake.bank)
    if not (len(fake.labels) and len(real.labels)):
        return {}, classes
    classes |= _per_class(real, fake)
    known = [recall for recall in classes["class_recall"] if recall == recall]  # not NaN
    values = {"metric/min_class_recall": min(known)} if known else {}
    if isinstance(extractor, Classifier):
        obeyed = extractor.judge(fake.bank).argmax(1) == fake.labels
        values["metric/class_accuracy"] = obeyed.double().mean().item()
    return values, classes


def _shares(extractor: FeatureExtractor, features: Tensor) -> dict[str, list[float]]:
    """How often each class is seen among the fakes, where the extractor is a classifier."""
    if not isinstance(extractor, Classifier):
        return {}
    guesses = extractor.judge(features).argmax(1)
    return {
        "class_histogram": (guesses.bincount(minlength=extractor.head.out_features) / len(guesses)).tolist()
    }


def _per_class(real: Statistics, fake: Statistics) -> dict[str, list[float]]:
    """Precision and recall within each class that was asked for; NaN where a side has too few samples."""
    found: dict[str, list[float]] = {"class_precision": [], "class_recall": []}
    for label in range(int(fake.labels.max()) + 1):
        sides = (real.bank[real.labels == label], fake.bank[fake.labels == label])
        if min(map(len, sides)) < MINIMUM:
            precision, recall = torch.full((2,), float("nan"))
        else:
            precision, recall = precision_recall(real=sides[0], fake=sides[1])
        found["class_precision"].append(precision.item())
        found["class_recall"].append(recall.item())
    return found
