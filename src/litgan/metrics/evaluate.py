"""Measures a generator against a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from litgan.metrics.distances import frechet_from_moments, kernel_distance, prdc
from litgan.metrics.features import Classifier, FeatureExtractor
from litgan.metrics.features import extractor as find_extractor
from litgan.metrics.streams import FeatureStream, Portions, RealSide, Statistics, real_statistics

MINIMUM = 6  # samples a side: density and coverage look at five neighbours


@dataclass(frozen=True)
class Report:
    """Metrics, and what they were measured with. The caller adds to `protocol` what it alone knows (EMA)."""

    values: dict[str, float]  # log key -> value
    protocol: dict[str, Any]
    class_shares: tuple[float, ...] | None = None  # of the fakes, where the extractor is a classifier

    def record(self) -> dict[str, Any]:
        """One dictionary for JSON."""
        shares = {} if self.class_shares is None else {"class_shares": list(self.class_shares)}
        return {**self.values, **shares, "protocol": self.protocol}


@torch.no_grad()
def evaluate(
    sample: Callable[[int, int], Tensor],
    data: RealSide,
    extractor: str | FeatureExtractor,
    *,
    count: int,
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
        extractor: a name of `litgan.metrics.features.EXTRACTORS`, or an extractor; it moves to `device`.
        count: fakes; and reals, or as many as the split holds.
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
    eyes = find_extractor(extractor).to(device)
    stream = FeatureStream(eyes, batch_size, neighbours_count, torch.device(device), rank, world_size)
    real = real_statistics(stream, data, count=reals, split=split, cache_dir=cache_dir)
    portions = Portions()
    fakes = (
        portions(lambda start, size: sample(first + start, size), min(batch_size, count - first))  # noqa: B023
        for first in range(rank * batch_size, count, world_size * batch_size)
    )
    fake = stream.collect(fakes, shift=real.moments.mean)
    protocol = {
        **eyes.protocol(),
        "real_count": real.moments.count,
        "fake_count": fake.moments.count,
        "neighbours_count": min(neighbours_count, count),
        "split": split,
        "data": data.fingerprint,
    }
    table = eyes.table(real=real.details, fake=fake.details, data=data)
    values = _distances(eyes.name, real, fake) | {f"metric/{name}": value for name, value in table.items()}
    return Report(values, protocol, _class_shares(eyes, fake.bank))


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


def _class_shares(eyes: FeatureExtractor, features: Tensor) -> tuple[float, ...] | None:
    if not isinstance(eyes, Classifier):
        return None
    guesses = eyes.judge(features).argmax(1)
    return tuple((guesses.bincount(minlength=eyes.head.out_features) / len(guesses)).tolist())
