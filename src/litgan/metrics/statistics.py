"""Statistics of the features of many samples, over all ranks; those of real samples are cached on disk."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from litgan.files import atomic_write, cache_folder
from litgan.memory import AutoBatchSize
from litgan.metrics.distances import Moments, float64_device
from litgan.metrics.extractors import FeatureExtractor

CACHE_VERSION = 6  # raise it when the cached values, or how they are computed, change


@dataclass(frozen=True)
class FeatureStats(Moments):
    """The moments of all samples' features; features, extras and labels of the first samples."""

    features: Tensor  # float32 [at most neighbours_count, D]
    extras: Tensor  # see `FeatureExtractor.extras`, [at most neighbours_count, R]
    labels: Tensor  # int64 [at most neighbours_count], or [0] without classes


@torch.no_grad()
def extract_features(
    batches: Iterable[tuple[Tensor, Tensor | None]],
    extractor: FeatureExtractor,
    *,
    neighbours_count: int,
    batch_size: int,
    device: torch.device,
    rank: int,
    world_size: int,
) -> FeatureStats:
    """Statistics over all ranks; all of them call this function.

    `batches` are samples and labels of the batches `rank`, `rank + world_size`, ..., possibly none. The first
    `neighbours_count` samples keep their features. On CUDA the loop does not wait for the device, hence
    non-finite samples are only counted in it, and raise ValueError on all ranks afterwards.
    """
    home = float64_device(device)
    moments = RunningMoments(extractor.dimension, home)
    non_finite = torch.zeros((), dtype=torch.int64, device=device)
    features = [torch.empty(0, extractor.dimension, device=home)]
    extras = [torch.empty(0, extractor.extras_size, dtype=extractor.extras_dtype, device=home)]
    labels = [torch.empty(0, dtype=torch.int64, device=home)]
    in_parts = AutoBatchSize()
    for index, (batch, batch_labels) in enumerate(batches):
        samples = batch.to(device)
        non_finite += samples.numel() - samples.isfinite().sum()
        found = in_parts(lambda at, size: extractor(samples[at : at + size]), len(samples)).to(home)  # noqa: B023
        moments.add(found.double())
        room = max(0, neighbours_count - (rank + index * world_size) * batch_size)
        if room:  # an extractor need not take an empty batch
            features.append(found[:room])
            extras.append(extractor.extras(samples[:room]).to(home))
        if room and batch_labels is not None and batch_labels.ndim == 1:  # else a condition, no class
            labels.append(batch_labels[:room].to(home))
    first = [torch.cat(parts) for parts in (features, extras, labels)]
    if world_size > 1:
        torch.distributed.all_reduce(non_finite)
        first = [_of_all_ranks(part, rank, world_size) for part in first]
    total = moments.result(over_ranks=world_size > 1)
    if non_finite:
        raise ValueError("The samples to measure hold NaN or infinity: measure an earlier checkpoint.")
    return FeatureStats(total.count, total.mean, total.covariance, *first)


class RunningMoments:
    """Sums over batches of features [N, `dimension`], float64, around the mean of the first batch."""

    def __init__(self, dimension: int, device: torch.device) -> None:
        self.center = torch.zeros(dimension, dtype=torch.float64, device=device)
        self.total, self.scatter = torch.zeros_like(self.center), torch.outer(self.center, self.center)
        self.count = 0

    def add(self, features: Tensor) -> None:
        if not self.count:
            self.center = features.mean(0)  # so that the sums keep their digits if it is far from zero
        centered = features - self.center
        self.count += len(features)
        self.total += centered.sum(0)
        self.scatter += centered.T @ centered

    def result(self, over_ranks: bool) -> Moments:
        """The moments of all batches; with `over_ranks` of those of all ranks, which all call this."""
        correction = self.total / max(self.count, 1)
        mean, count = self.center + correction, self.count
        scatter = self.scatter - count * torch.outer(correction, correction)
        if over_ranks:  # Chan et al. 1979, equation 2.1
            counts, center = torch.tensor(count, device=mean.device), count * mean
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(center)
            center /= counts
            scatter += count * torch.outer(mean - center, mean - center)
            torch.distributed.all_reduce(scatter)
            mean, count = center, int(counts)
        return Moments(count, mean, scatter / (count - 1))


def _of_all_ranks(part: Tensor, rank: int, world_size: int) -> Tensor:
    """The rows of all ranks, in their order. A gather would take memory for as many rows from every rank."""
    sizes = torch.zeros(world_size, dtype=torch.int64, device=part.device)
    sizes[rank] = len(part)
    torch.distributed.all_reduce(sizes)
    rows = part.new_zeros(int(sizes.sum()), *part.shape[1:])
    first = int(sizes[:rank].sum())
    rows[first : first + len(part)] = part
    if rows.numel():
        torch.distributed.all_reduce(rows.view(torch.uint8))  # the others' bytes are zeros
    return rows


def cache_path(cache_dir: str | Path | None, extractor: FeatureExtractor, **key: Any) -> Path:
    """The file for the statistics of an extractor and a `key`, which is any data for JSON.

    `cache_dir` None is $LITGAN_CACHE, else ~/.cache/litgan.
    """
    key |= {"version": CACHE_VERSION, "extractor": extractor.protocol()}
    digest = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=8).hexdigest()
    name = re.sub(r"[^\w.-]", "_", extractor.name)[:64]  # a checkpoint may contain any name
    return cache_folder(cache_dir) / f"{name}-{digest}.safetensors"


def load_stats(path: Path, *, device: torch.device, rank: int, world_size: int) -> FeatureStats | None:
    """The statistics in a file of rank zero, on all ranks; a damaged file causes a warning."""
    tensors: dict[str, Tensor] | None = None
    if rank == 0 and path.is_file():
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                if _digest(tensors) != (file.metadata() or {}).get("sha256"):
                    raise ValueError("its numbers do not fit their digest")
        except Exception as error:  # a damaged file may raise anything
            warnings.warn(f"{path} is unreadable ({error}): its content is computed anew.", stacklevel=2)
            tensors = None
    home = float64_device(device)
    if world_size > 1:  # machines may not share the folder
        kinds: list[Any] = [tensors and [(name, value.shape, value.dtype) for name, value in tensors.items()]]
        torch.distributed.broadcast_object_list(kinds)
        if tensors is None and kinds[0]:
            tensors = {name: torch.empty(shape, dtype=dtype) for name, shape, dtype in kinds[0]}
    if tensors is None:
        return None
    tensors = {name: value.to(home) for name, value in tensors.items()}
    for value in tensors.values() if world_size > 1 else ():
        if value.numel():
            torch.distributed.broadcast(value, 0)
    return FeatureStats(int(tensors.pop("count")), **tensors)


def save_stats(path: Path, stats: FeatureStats) -> None:
    """Writes the file completely or not at all; a full disk only causes a warning."""
    tensors = {name: torch.as_tensor(value).contiguous().cpu() for name, value in vars(stats).items()}
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(save(tensors, {"sha256": _digest(tensors)}))
    except OSError as error:
        warnings.warn(
            f"The real statistics are not cached ({error}): set LITGAN_CACHE to a writable folder.",
            stacklevel=2,
        )


def _digest(tensors: dict[str, Tensor]) -> str:
    """Of names, types, shapes and bytes."""
    return hashlib.sha256(save(tensors)).hexdigest()
