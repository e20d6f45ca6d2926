"""Threads: how many a run on the CPU takes, measured where the recipe says so."""

from __future__ import annotations

import statistics
import time
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer

from litgan.gan import GAN
from litgan.options import check_counts

BLOCK = 4  # iterations with as many threads; the first of them only warms up
BLOCKS = 4  # one thread, all, one, all
HOPELESS = 2  # an iteration with all threads that takes longer than so many blocks with one ends the turns
WORTH = 0.8  # all threads must take less than this fraction of the time of one


class Threads(Callback):
    """Sets torch's number of threads for a run on the CPU.

    With "auto" the first 16 iterations run by turns with one thread and with all that torch would take, or
    fewer if all are much slower; the rest of the run keeps one thread unless all are worth it. Small networks
    are often faster with one, and any are on a machine whose cores are busy. The choice, and an unfinished
    measurement, are in the checkpoint, because the order of sums, hence their last bits, depends on it: a
    resumed run goes on with the same number. Two new runs may choose differently: give a number where they
    must be equal bit for bit.

    Args:
        count: a number, "auto", or None for what torch takes (OMP_NUM_THREADS, else all cores). Several
            ranks measure nothing and share the cores as Lightning says.

    Raises:
        ValueError: `count` is less than 1.
    """

    def __init__(self, count: int | Literal["auto"] | None = None) -> None:
        if isinstance(count, int):
            check_counts("threads.", count=count)
        self.count = count
        self.chosen: int | None = None
        self.iterations = 0  # so far, by turns
        self.seconds: list[list[float]] = [[], []]  # of iterations with one thread, with all
        self.available = 0  # threads that torch takes by itself
        self.measures = False
        self.began = self.taken = 0.0

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.available = torch.get_num_threads()
        several = self.available > 1 and trainer.world_size == 1 and gan.device.type == "cpu"
        self.measures = self.count == "auto" and self.chosen is None and several
        count = self.chosen if self.count == "auto" else self.count
        if count is not None and gan.device.type == "cpu":
            torch.set_num_threads(count)

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if self.measures:
            torch.set_num_threads(self.available if self.iterations // BLOCK % 2 else 1)
            self.began = time.perf_counter() - gan.seconds_excluded

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if not self.measures:
            return
        self.taken += time.perf_counter() - gan.seconds_excluded - self.began
        if not gan.iteration_is_complete:
            return
        side = self.iterations // BLOCK % 2
        hopeless = side == 1 and self.taken > HOPELESS * sum(self.seconds[0])
        if hopeless or self.iterations % BLOCK:
            self.seconds[side].append(self.taken)
        self.taken, self.iterations = 0.0, self.iterations + 1
        if hopeless or self.iterations == BLOCK * BLOCKS:
            self.choose()

    def choose(self) -> None:
        one, several = (1e3 * statistics.mean(seconds) for seconds in self.seconds)
        self.chosen, self.measures = self.available if several < WORTH * one else 1, False
        torch.set_num_threads(self.chosen)
        print(
            f"threads: {self.chosen} (an iteration takes {one:,.1f} ms with 1, {several:,.1f} ms with "
            f"{self.available})",
            flush=True,
        )

    def teardown(self, trainer: Trainer, gan: GAN, stage: str) -> None:
        if self.available:
            torch.set_num_threads(self.available)

    def state_dict(self) -> dict[str, Any]:
        return {"chosen": self.chosen, "iterations": self.iterations, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.chosen, self.iterations = state["chosen"], state["iterations"]
        self.seconds = [list(side) for side in state["seconds"]]
