"""Processes that share the work of one command, under torchrun."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import TypeVar

import torch
import torch.distributed as dist

Part = TypeVar("Part")
PATIENCE = 1.0  # seconds for a process to end by itself; Lightning kills all after five


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


@contextmanager
def ending_on_ctrl_c(started: Callable[[], bool], clean_up: Callable[[], None], code: int) -> Iterator[None]:
    """Ends this process on Ctrl-C although it waits for another one, where Python's handlers do not run.

    Args:
        started: whether something is trained; then a callback ends the run.
        clean_up: called before the end.
        code: of the exit.
    """
    if threading.current_thread() is not threading.main_thread():  # Python allows no other
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while received := os.read(reading, 1):
            if received[0] == signal.SIGINT and not started():
                time.sleep(PATIENCE)
                clean_up()
                os._exit(code)

    threading.Thread(target=watch, daemon=True).start()
    before = signal.set_wakeup_fd(writing)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)


def gather_interleaved(share: list[Part]) -> list[Part]:
    """Gathers the lists of all ranks on rank zero, interleaved: a0, b0, a1, b1, ...; [] on other ranks."""
    if not dist.is_initialized():
        return share
    shares: list[list[Part]] = [[] for _ in range(dist.get_world_size())]
    dist.gather_object(share, shares if dist.get_rank() == 0 else None)
    return [part for parts in zip_longest(*shares) for part in parts if part is not None]
