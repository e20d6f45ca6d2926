"""Throughput: images a second, the share of time that training waits for data, and peak memory.

Lightning's ThroughputMonitor would count pictures, metrics and checkpoints as training time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Callback, Trainer

from litgan.axis import is_logging_point
from litgan.gan import GAN


class Throughput(Callback):
    """Logs the speed of training alone.

    `speed/images_per_second` over all ranks; `speed/data_wait`, the share of the time in [0, 1] between the
    last hook of one batch and the first of the next; `speed/peak_memory_gib` of the device (on CPU: of the
    process). It must be the first callback, or what others do at the start of a batch counts as waiting.
    """

    def __init__(self) -> None:
        self.since = self.excluded = self.waited = self.ended = 0.0
        self.images = 0

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.restart(gan)

    def restart(self, gan: GAN) -> None:
        self.since, self.excluded, self.waited = time.perf_counter(), gan.seconds_excluded, 0.0
        self.images = gan.images_seen
        self.ended = self.since - self.excluded

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        began = max(self.ended, gan.waiting_since)  # a subclass of GAN may not update the latter
        self.waited += time.perf_counter() - gan.seconds_excluded - began

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if gan.iteration_is_complete and is_logging_point(trainer):
            if gan.device.type == "cuda":  # or queued work would count as waiting for data
                torch.cuda.synchronize(gan.device)
            seconds = time.perf_counter() - self.since - (gan.seconds_excluded - self.excluded)
            values = {
                "speed/images_per_second": (gan.images_seen - self.images) / max(seconds, 1e-9),
                "speed/data_wait": self.waited / max(seconds, 1e-9),
                "speed/peak_memory_gib": peak_memory_gib(gan.device),
            }
            gan.log_scalars(values)
            self.restart(gan)
        self.ended = time.perf_counter() - gan.seconds_excluded


@contextmanager
def untimed(gan: GAN) -> Iterator[None]:
    """Excludes the time spent in here from the measured speed."""
    start = time.perf_counter()
    try:
        yield
    finally:
        gan.seconds_excluded += time.perf_counter() - start


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory: on CUDA of its tensors, elsewhere of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:  # Windows has none
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
