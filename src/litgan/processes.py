"""Processes that share the work of one command, under torchrun."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)

Part = TypeVar("Part")
CHOICE = "LITGAN_RANK_ZERO"  # what rank zero has chosen, for the ranks that Lightning starts
TIMEOUT = timedelta(minutes=10)  # until the last rank has started and rank zero has chosen
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


def local_rank() -> int:
    """Number of this process on its machine; 0 for a process that no launcher has started."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)


@contextmanager
def local_rank_zero_first() -> Iterator[None]:
    """The first rank of each machine runs this context before the others: it downloads once for all."""
    together, first = dist.is_initialized(), local_rank() == 0
    if together and not first:
        dist.barrier()
    try:
        yield
    finally:
        if together and first:
            dist.barrier()


def connect() -> tuple[int, dist.Store | None]:
    """Rank and store of a process that torchrun or SLURM has started among others; else (0, None).

    Ranks share the store before they join a process group. Keep it until then: rank zero may serve it.
    """
    if not dist.is_available():
        return 0, None
    environment: Any = None
    if TorchElasticEnvironment.detect():
        environment = TorchElasticEnvironment()
    elif SLURMEnvironment.detect():
        environment = SLURMEnvironment(auto_requeue=False)
        assert environment.main_address and environment.main_port  # which sets MASTER_ADDR and MASTER_PORT
    if environment is None or environment.world_size() == 1:
        return 0, None
    rank = environment.global_rank()
    store, *_ = next(dist.rendezvous("env://", rank, environment.world_size(), timeout=TIMEOUT))
    return rank, store


def choose_on_rank_zero(choose: Callable[[], Any], rank: int, store: dist.Store | None) -> Any:
    """What `choose` returns on rank zero, plain data for JSON, on every rank, with what `connect` returned.

    Raises RuntimeError: one sentence, on other ranks: that of rank zero's error, or that it says nothing.
    """
    if store is None and os.environ.get("LOCAL_RANK", "0") != "0" and CHOICE in os.environ:
        return json.loads(os.environ[CHOICE])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store outlives its ranks
    turn = 0 if store is None else store.add(f"{CHOICE} calls {attempt} {rank}", 1)
    key = f"{CHOICE} {attempt} {turn}"
    if rank == 0:
        try:
            choice = choose()
        except Exception as error:
            if store is not None:
                store.set(key, json.dumps({"error": str(error)}))
            raise
        os.environ[CHOICE] = json.dumps(choice)
        if store is not None:
            store.set(key, json.dumps({"choice": choice}))
        return choice
    assert store is not None
    try:
        message = json.loads(store.get(key))
    except dist.DistError as error:
        raise RuntimeError("Rank 0 has ended, or does not answer: look at what it printed.") from error
    if "error" in message:
        raise RuntimeError(message["error"])
    return message["choice"]


def slurm(plugins: list[Any]) -> list[ClusterEnvironment]:
    """Lightning's environment under SLURM, without its requeueing, which interrupts iterations."""
    chosen = any(isinstance(plugin, ClusterEnvironment) for plugin in plugins)
    if chosen or TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]


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
