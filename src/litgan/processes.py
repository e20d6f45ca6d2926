"""Processes that share the work of one command, under torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import TypeVar

import torch
import torch.distributed as dist

Part = TypeVar("Part")


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def init_distributed() -> Iterator[tuple[int, int, torch.device]]:
    """(rank, world size, device) of a process under torchrun, else (0, 1, the best device).

    Initializes the process group for this context unless there is one: gloo for CPU tensors, NCCL for GPUs.
    """
    if not (dist.is_available() and dist.is_torchelastic_launched()):
        yield 0, 1, best_device()
        return
    device = best_device()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    joins = not dist.is_initialized()
    if joins:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield dist.get_rank(), dist.get_world_size(), device
    finally:
        if joins:
            dist.destroy_process_group()


@contextmanager
def local_rank_zero_first() -> Iterator[None]:
    """The first rank of each machine runs this context before the others: it downloads once for all."""
    together, first = dist.is_initialized(), os.environ.get("LOCAL_RANK") == "0"
    if together and not first:
        dist.barrier()
    yield
    if together and first:
        dist.barrier()


def gather_interleaved(share: list[Part]) -> list[Part]:
    """Gathers the lists of all ranks on rank zero, interleaved: a0, b0, a1, b1, ...; [] on other ranks."""
    if not dist.is_initialized():
        return share
    shares: list[list[Part]] = [[] for _ in range(dist.get_world_size())]
    dist.gather_object(share, shares if dist.get_rank() == 0 else None)
    return [part for parts in zip_longest(*shares) for part in parts if part is not None]
