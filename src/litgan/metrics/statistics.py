"""Streams of features, added up over ranks; the real side's are kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torchmetrics import Metric

from litgan.files import atomic_write
from litgan.metrics.distances import Moments
from litgan.metrics.extractors import FeatureExtractor

CACHE_VERSION = 5  # raise it when what is cached, or how it is computed, changes


class RealSide(Protocol):
    """What the measurement asks of a data module; every `litgan.data.GANDataModule` has it."""

    @property
    def fingerprint(self) -> str:
        """Hash of what the real side is."""

    def size(self, split: str = "train") -> int:
        """Samples in a split."""

    def real_batches(
        self, count: int, *, batch_size: int = 250, split: str = "train", rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Batches `rank`, `rank + world_size`, ... of a fixed choice of `count` samples in [-1, 1]."""


class FeatureMoments(Metric):
    """Mean and covariance of a stream of features, as float64 sums, so that ranks just add up.

    Args:
        dimension: D of the features.
        shift: a point near the cloud, [D], the same on all ranks; sums are taken around it, which keeps
            a mean far from zero from eating the covariance's digits.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    outer: Tensor
    shift: Tensor

    def __init__(self, dimension: int, shift: Tensor | None = None, **options: Any) -> None:
        super().__init__(**options)
        origin = torch.zeros(dimension, dtype=torch.float64)
        self.register_buffer("shift", origin if shift is None else shift.double(), persistent=False)
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros_like(origin), dist_reduce_fx="sum")
        self.add_state("outer", torch.outer(origin, origin), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Adds features [N, D]."""
        shifted = features.double() - self.shift
        self.count += len(features)
        self.total += shifted.sum(0)
        self.outer += shifted.T @ shifted

    def compute(self) -> Moments:
        """The moments of all that came; the covariance is NaN for fewer than two samples."""
        mean = self.total / self.count
        covariance = (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return Moments(int(self.count), mean + self.shift, covariance)


class FeatureBank(Metric):
    """Features kept as they are, for distances between pairs; ranks concatenate theirs."""

    full_state_update = False
    features: list[Tensor] | Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("features", [], dist_reduce_fx="cat")

    def update(self, features: Tensor) -> None:
        """Keeps features [N, D], of any dtype."""
        assert isinstance(self.features, list)
        self.features.append(features)

    def compute(self) -> Tensor:
        """All that came, [N, D]; in another order on another number of ranks."""
        return torch.cat(self.features) if isinstance(self.features, list) else self.features


@dataclass(frozen=True)
class Statistics:
    """One side of the comparison: moments of all samples, and the features of the first."""

    moments: Moments
    bank: Tensor  # float32 [at most neighbours_count, D]
    extras: Tensor  # of the same samples, [at most neighbours_count, R]
    labels: Tensor  # of the same samples, int64 [at most neighbours_count], or none


@dataclass(frozen=True)
class FeatureStream:
    """How samples pass before the extractor, the same for both sides: batch k on rank k % `world_size`."""

    extractor: FeatureExtractor
    batch_size: int
    bank_limit: int  # samples with a smaller index keep their features
    device: torch.device
    rank: int
    world_size: int

    @torch.no_grad()
    def collect(
        self, batches: Iterable[tuple[Tensor, Tensor | None]], shift: Tensor | None = None
    ) -> Statistics:
        """Statistics over all ranks; `batches` are this rank's, around `shift` (see `FeatureMoments`).

        On CUDA nothing in the loop waits for the device: it draws, looks and adds up while the next batch is
        being prepared. So the samples that are not finite are counted, and refused by all ranks at the end.
        """
        extractor, dimension = self.extractor, self.extractor.dimension
        home = torch.device("cpu") if self.device.type == "mps" else self.device  # Metal has no float64
        options = {"sync_on_compute": self.world_size > 1}
        moments = FeatureMoments(dimension, shift, **options).to(home)
        bank, extras, classes = (FeatureBank(**options).to(home) for _ in range(3))
        for metric in (moments, bank):  # a rank may get no batch at all, and still has to join the reduction
            metric.update(torch.empty(0, dimension, device=home))
        extras.update(torch.empty(0, extractor.extras_size, dtype=extractor.extras_dtype, device=home))
        classes.update(torch.empty(0, dtype=torch.int64, device=home))
        flawed, portions = torch.zeros((), dtype=torch.int64, device=self.device), Portions()
        for turn, (batch, labels) in enumerate(batches):
            samples = batch.to(self.device)
            flawed += samples.numel() - samples.isfinite().sum()
            look = lambda start, count: extractor(samples[start : start + count])  # noqa: B023, E731
            features = portions(look, len(samples)).to(home)
            moments.update(features)
            first = (self.rank + turn * self.world_size) * self.batch_size
            kept = max(0, self.bank_limit - first)
            bank.update(features[:kept])
            if extractor.extras_size:
                extras.update(extractor.extras(samples[:kept]).to(home))
            if labels is not None:
                classes.update(labels[:kept].to(home))
        if self.world_size > 1:
            torch.distributed.all_reduce(flawed)
        if flawed:
            raise ValueError("The samples to measure hold NaN or infinity: measure an earlier checkpoint.")
        return Statistics(moments.compute(), bank.compute(), extras.compute(), classes.compute())


class Portions:
    """Calls a function on ranges that fit into the device's memory.

    Where memory gives out, the range is halved and tried again; later calls keep to the smaller size.
    """

    def __init__(self) -> None:
        self.size: int | None = None  # largest range that is tried, None while nothing was too large

    def __call__(self, function: Callable[[int, int], Tensor], count: int) -> Tensor:
        """`function(start, size)` over 0 to `count`, concatenated.

        Raises:
            RuntimeError: a single item does not fit either.
        """
        pieces: list[Tensor] = []
        start = 0
        while start < count:
            size = min(self.size or count, count - start)
            try:
                pieces.append(function(start, size))
            except RuntimeError as error:
                if size == 1 or not _is_out_of_memory(error):
                    raise
                self.size = (size + 1) // 2
            else:
                start += size
                continue
            if torch.cuda.is_available():  # after the handler, whose traceback holds on to tensors
                torch.cuda.empty_cache()
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA, XPU and MPS say the first, the allocator of the CPU the second."""
    return any(sign in str(error) for sign in ("out of memory", "can't allocate memory"))


def real_statistics(
    stream: FeatureStream, data: RealSide, *, count: int, split: str, cache_dir: str | Path | None
) -> Statistics:
    """The real side: from the cache, or computed by all ranks together and then cached by the first.

    Args:
        stream: how the samples are seen; only its extractor and `bank_limit` change the result.
        data: the data set.
        count: samples, at most `data.size(split)`.
        split: of the data set.
        cache_dir: folder of the cache; None is $LITGAN_CACHE, else ~/.cache/litgan.
    """
    key = {
        "version": CACHE_VERSION,
        "data": data.fingerprint,
        "split": split,
        "count": count,
        "neighbours_count": min(stream.bank_limit, count),
        "extractor": stream.extractor.protocol(),
    }
    name = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=8).hexdigest()
    extractor = re.sub(r"[^\w.-]", "_", stream.extractor.name)[:64]  # an extractor may be called anything
    path = _cache_folder(cache_dir) / f"{extractor}-{name}.safetensors"
    found = _load(path, stream)
    if stream.world_size > 1:  # nodes may not share the folder: compute together unless all have it
        hits = torch.tensor(int(found is not None), device=stream.device)
        torch.distributed.all_reduce(hits, torch.distributed.ReduceOp.MIN)
        found = found if hits else None
    if found is not None:
        return found
    batches = data.real_batches(
        count, batch_size=stream.batch_size, split=split, rank=stream.rank, world_size=stream.world_size
    )
    statistics = stream.collect(batches)
    if stream.rank == 0:
        _save(path, statistics)
    return statistics


def _cache_folder(cache_dir: str | Path | None) -> Path:
    return Path(cache_dir or os.environ.get("LITGAN_CACHE") or "~/.cache/litgan").expanduser()


def _load(path: Path, stream: FeatureStream) -> Statistics | None:
    """What the cache holds, on the stream's device; None, with a warning, unless it is what was saved."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if _digest(tensors) != (file.metadata() or {}).get("sha256"):
                raise ValueError("its numbers do not fit their digest")
        home = "cpu" if stream.device.type == "mps" else stream.device
        tensors = {name: value.to(home) for name, value in tensors.items()}
        moments = Moments(int(tensors["count"]), tensors["mean"], tensors["covariance"])
        return Statistics(moments, tensors["bank"], tensors["extras"], tensors["labels"])
    except Exception as error:  # whatever a damaged file provokes
        warnings.warn(f"{path} is unreadable ({error}): the real statistics are computed anew.", stacklevel=2)
        return None


def _digest(tensors: dict[str, Tensor]) -> str:
    """Of names, types, shapes and bytes."""
    return hashlib.sha256(save(tensors)).hexdigest()


def _save(path: Path, statistics: Statistics) -> None:
    """Whole or not at all, also beside another run that writes the same file."""
    moments = statistics.moments
    tensors = {
        "count": torch.tensor(moments.count),
        "mean": moments.mean,
        "covariance": moments.covariance,
        "bank": statistics.bank,
        "extras": statistics.extras,
        "labels": statistics.labels,
    }
    tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(save(tensors, {"sha256": _digest(tensors)}))
    except OSError as error:
        warnings.warn(
            f"The real statistics are not cached ({error}): set LITGAN_CACHE to a writable folder.",
            stacklevel=2,
        )
