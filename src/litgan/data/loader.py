"""Batches as a function of the clock: which samples come next follows from (seed, images seen).

The order of an epoch is a function of (seed, epoch): resuming in the middle of one needs no saved state.
Each rank takes a contiguous part of every global batch: N ranks together get the batches of one rank.
Batches from memory and from disk are equal bit for bit.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from litgan.data.files import read_each
from litgan.memory import explain_lack
from litgan.noise import Noise, send, torch_generator
from litgan.rebuild import is_sentence

Batch: TypeAlias = tuple[Tensor, Tensor | None]  # samples [B, *sample_shape]; labels [B] or conditions
Memory: TypeAlias = Literal["auto", "device", "host", "disk"]

AUTO_SHARE = 0.25  # of the free memory: the largest data set that memory "auto" loads


class SampleFiles(Protocol):
    """A data set on disk: any map-style one whose samples are tensors of one shape."""

    @property
    def fingerprint(self) -> str:
        """Hash that changes if the files or the options of reading change."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Tensor: ...


Split: TypeAlias = tuple[Tensor | SampleFiles, Tensor | SampleFiles | None]  # stored; labels, conditions


def to_unit_range(stored: Tensor) -> Tensor:
    """Stored samples to float32: uint8 0..255 becomes -1..1 (both ends exact), floats keep their values.

    Images [B, C, H, W] come out in channels_last memory format.
    """
    layout = torch.channels_last if stored.ndim == 4 else torch.contiguous_format
    samples = stored.to(torch.float32, memory_format=layout)
    # Each operation rounds once, so CPU and GPU agree on every bit; a GPU's division would not.
    return samples.sub_(127.5).mul_(1 / 127.5) if stored.dtype == torch.uint8 else samples


class ResumableBatchSampler(Sampler[list[int]]):
    """This rank's indices of the remaining batches of the current epoch.

    The order of epoch e is a permutation drawn from (seed, e); an incomplete last batch is dropped.
    Each iteration reads the clock anew: after a resume, an epoch, or part of one.

    Args:
        size: samples in the data set.
        batch_size: B, over all ranks.
        seed: of the order.
        rank: this process; it takes samples [rank * B / W, (rank + 1) * B / W) of each batch.
        world_size: number of processes W.
        images_seen: the clock, samples over all ranks since the run began.
        endless: whether an iteration goes on with the next epoch, because the Trainer ends it before.
        balance: labels [N] of classes that each epoch shows equally often; None shows each sample once.

    Raises:
        ValueError: `batch_size` is not positive, not a multiple of `world_size`, or exceeds `size`.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        images_seen: Callable[[], int] = lambda: 0,
        endless: Callable[[], bool] = lambda: False,
        balance: Tensor | None = None,
    ) -> None:
        if not 1 <= batch_size <= size:
            raise ValueError(
                f"batch_size {batch_size} does not fit a data set of {size} samples: give 1 to {size}."
            )
        if batch_size % world_size:
            below = batch_size - batch_size % world_size
            nearest = " or ".join(str(n) for n in (below, below + world_size) if n)
            raise ValueError(
                f"batch_size {batch_size} is global and cannot be shared equally by {world_size} processes: "
                f"give {nearest}."
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.share = batch_size // world_size
        self.first = rank * self.share
        self.images_seen, self.endless = images_seen, endless
        self.balance = balance

    def __len__(self) -> int:
        """Batches in a whole epoch, also in the middle of one."""
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        return (indices.tolist() for _, indices in self.batches())

    def batches(self, device: torch.device | str = "cpu") -> Iterator[tuple[int, Tensor]]:
        """Pairs of (number of the batch since the run began, this rank's indices [B / W] on `device`)."""
        done = self.images_seen() // self.batch_size
        for epoch in count(done // len(self)):
            generator = torch_generator("order", self.seed, epoch)
            order = torch.randperm(self.size, generator=generator)
            if self.balance is not None:
                order = balanced_order(self.balance, generator)[order]
            order = send(order, device)
            for number in range(max(done, epoch * len(self)), (epoch + 1) * len(self)):
                start = number % len(self) * self.batch_size + self.first
                yield number, order[start : start + self.share]
            if not self.endless():
                break

    def noise(self, number: int, name: str, device: torch.device) -> Noise:
        """Random numbers for this rank's samples of batch `number`."""
        return Noise(self.seed, number, self.first, self.share, name=name, device=device)


def balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Indices [N] with the classes of labels [N] equally frequent (to within one); rare samples repeat."""
    members = [(labels == label).nonzero().flatten() for label in labels.unique()]
    share, rest = divmod(len(labels), len(members))
    chosen = []
    for place, own in enumerate(members):
        wanted = share + (place < rest)
        rounds = [torch.randperm(len(own), generator=generator) for _ in range(-(-wanted // len(own)))]
        chosen.append(own[torch.cat(rounds)[:wanted]])
    return torch.cat(chosen)


class Loader:
    """Iterable over batches (samples; labels, conditions or None) on `device`.

    No torch DataLoader, and no attribute `sampler`: under DDP Lightning would replace the sampler.

    Args:
        samples: one tensor [N, ...], or files, which torch's DataLoader reads.
        conditions: int64 labels [N], stored conditions of either kind, `samples` themselves, or None.
        sampler: order, part of this rank and clock.
        device: of the batches.
        memory: of tensors; "device" moves them to the device once, "auto" too if they take no more than
            `AUTO_SHARE` of the memory that is free there; otherwise each batch is moved.
        num_workers: processes that read files (0: this one).
        encode: maps a batch of stored samples to what the discriminator gets.
        encode_condition: likewise of stored conditions; None for labels, which stay as they are.
        flip: mirror each image left to right with probability one half, and an image condition with it.
        augment: varies a batch of stored samples and conditions, given its random numbers.
    """

    def __init__(
        self,
        samples: Tensor | SampleFiles,
        conditions: Tensor | SampleFiles | None,
        sampler: ResumableBatchSampler,
        *,
        device: torch.device | str = "cpu",
        memory: Memory = "auto",
        num_workers: int = 0,
        encode: Callable[[Tensor], Tensor] = to_unit_range,
        encode_condition: Callable[[Tensor], Tensor] | None = None,
        flip: bool = False,
        augment: Callable[[Tensor, Tensor | None, Noise], tuple[Tensor, Tensor | None]] | None = None,
    ) -> None:
        self.device, self._sampler = torch.device(device), sampler
        self.encode, self.encode_condition, self.flip, self.augment = encode, encode_condition, flip, augment
        self.is_own_condition = conditions is samples  # read and varied once
        parts = [samples] if conditions is None or self.is_own_condition else [samples, conditions]
        files = [part for part in parts if not isinstance(part, Tensor)]
        tensors = [part for part in parts if isinstance(part, Tensor)]
        size = sum(part.nbytes for part in tensors)
        if files:
            self._reader: DataLoader[Any] = DataLoader(
                _BatchReader(files),
                sampler=sampler,
                batch_size=None,  # the sampler's items are whole batches
                num_workers=num_workers,
                persistent_workers=num_workers > 0,
                worker_init_fn=_ignore_signals_of_the_job,
                generator=torch.Generator(),  # without one it draws from the global stream each epoch
            )
        elif memory == "device" or (memory == "auto" and size <= AUTO_SHARE * free_memory(self.device)):
            needed = f"{size / 2**30:.1f} GiB of samples that data.memory {memory} keeps there"
            with explain_lack(needed, "give data.memory auto or host"):
                parts = [part.to(self.device) for part in tensors]
        self.samples, self._parts = parts[0], parts

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[Batch]:
        for number, parts in self._stored_batches():
            stored, *rest = (send(part, self.device) for part in parts)
            condition = stored if self.is_own_condition else rest[0] if rest else None
            if self.flip:
                chance = self._sampler.noise(number, "flip", self.device).uniform(*[1] * (stored.ndim - 1))
                mirrored = torch.where(chance < 0.5, stored.flip(-1), stored)
                if condition is stored:
                    condition = mirrored
                elif condition is not None and condition.ndim == 4:
                    condition = torch.where(chance < 0.5, condition.flip(-1), condition)
                stored = mirrored
            if self.augment is not None:
                noise = self._sampler.noise(number, "vary", self.device)
                stored, condition = self.augment(stored, condition, noise)
            if condition is not None and self.encode_condition is not None:
                condition = self.encode_condition(condition)
            yield self.encode(stored), condition

    def _stored_batches(self) -> Iterator[tuple[int, list[Tensor]]]:
        """(number of the batch, its stored samples and conditions)."""
        parts = self._parts
        if isinstance(parts[0], Tensor) and all(isinstance(part, Tensor) for part in parts):
            for number, chosen in self._sampler.batches(parts[0].device):
                yield number, [part.index_select(0, chosen) for part in parts]  # type: ignore[union-attr]
            return
        for (number, chosen), read in zip(self._sampler.batches(), self._reader, strict=True):
            if isinstance(read, Exception):
                try:
                    raise read
                finally:
                    del read  # with this frame it makes a cycle that keeps the workers for seconds
            of_files = iter(read)
            batch = [part[chosen] if isinstance(part, Tensor) else next(of_files) for part in parts]
            yield number, batch


class _BatchReader(Dataset[Any]):
    """Whole batches of map-style data sets, for DataLoader."""

    def __init__(self, files: list[SampleFiles]) -> None:
        self.files = files

    def __getitem__(self, indices: list[int]) -> list[Tensor] | Exception:
        try:
            return [self._read(files, indices) for files in self.files]
        except Exception as error:  # returned: DataLoader would hide its sentence in a traceback
            if not is_sentence(error):
                raise
            return error

    def _read(self, files: SampleFiles, indices: list[int]) -> Tensor:
        batch = torch.stack([files[index] for index in indices])
        if batch.is_floating_point() and not (finite := batch.flatten(1).isfinite().all(1)).all():
            raise ValueError(
                f"Sample {indices[int((~finite).nonzero()[0])]} of {type(files).__name__} holds values that "
                "are not finite: correct or remove it."
            )
        return batch


def _ignore_signals_of_the_job(worker: int) -> None:
    """Terminals and schedulers signal every process of a job, but training still needs its workers to end
    the iteration. A worker ends on SIGTERM of the training process, or when that is gone.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if one := getattr(signal, name, None):  # Windows has not all of them
            signal.signal(one, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux; elsewhere nothing tells who sent a signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parents_sigterm, daemon=True).start()


def _exit_on_parents_sigterm() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def gather(samples: SampleFiles | Tensor, indices: Tensor, skip_unusable: bool | None = None) -> Tensor:
    """The stored samples at `indices`, stacked; files are read by several threads.

    `skip_unusable` is the option that the message on unusable files names, if it is not None.
    """
    if isinstance(samples, Tensor):
        return samples[indices]
    read = read_each(samples.__getitem__, indices.tolist(), "reading files", skip=skip_unusable and None)
    gathered: Tensor | None = None
    for place, sample in enumerate(read):
        if sample is not None:
            gathered = sample.new_empty(len(indices), *sample.shape) if gathered is None else gathered
            gathered[place] = sample
    assert gathered is not None  # else `read` raised
    return gathered


def default_workers(device: torch.device, processes: int) -> int:
    """Processes that read files for one of those that train on a machine: none on a CPU, which they share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // processes)) if device.type == "cuda" else 0


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes free on a GPU; for the host, bytes installed or, in a control group, allowed."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if not hasattr(os, "sysconf"):  # Windows: the operating system pages
        return 1 << 62
    # The memory that is free now says little on a host: reading files fills it with their cache.
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return min(installed, int(allowed)) if allowed.isdecimal() else installed
