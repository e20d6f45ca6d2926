"""Many devices: one gradient reducer per network, which works in the updates of its own network only."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.pytorch.overrides.distributed import _register_ddp_comm_hook, prepare_for_backward
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from litgan.seeds import end_with_parent


class AdversarialDDPStrategy(DDPStrategy):
    """Data parallelism with one `DistributedDataParallel` per network.

    Lightning's DDP wraps the whole module, so that each backward pass waits for the gradients of all
    networks: a GAN fails or, with `find_unused_parameters`, searches the graph and sends zeros for the
    network that is not updated. Here every child of the module that has trainable parameters gets a
    `DistributedDataParallel`, of which only the reducer is used. Networks are called directly, any number of
    times; right before a backward pass the reducers of those that are not frozen are prepared. Second
    derivatives and penalties with passes of their own need nothing special, names of weights do not change,
    and each rank keeps its own buffers.

    If a rank dies, torchrun's agent or Lightning's launcher ends the others, or their next reduction fails.
    If it hangs, they end after `timeout_minutes`. In recipes: `trainer.strategy: adversarial_ddp`.

    Args:
        timeout_minutes: longest wait of ranks for each other; longer than what one rank does alone, such as
            reading a data set for the first time.
        ddp_comm_hook: communication hook for every reducer, e.g. torch's `bf16_compress_hook`.
        ddp_comm_state: makes the hook's state, once for each reducer (PowerSGD's belongs to one).
        options: those of Lightning's DDPStrategy, and of `DistributedDataParallel` (`bucket_cap_mb`, ...).

    Raises:
        ValueError: for `static_graph`, a `ddp_comm_state` that is no function, or a timeout of 0 or less.
    """

    def __init__(
        self,
        *,
        timeout_minutes: float = 10.0,
        ddp_comm_hook: Callable[..., Any] | None = None,
        ddp_comm_state: Callable[[], Any] | None = None,
        **options: Any,
    ) -> None:
        if options.get("static_graph"):
            raise ValueError(
                "The graphs of a GAN's updates differ, since penalties may be lazy: leave out static_graph."
            )
        if ddp_comm_state is not None and not callable(ddp_comm_state):
            raise ValueError(
                f"ddp_comm_state is a {type(ddp_comm_state).__name__} that all networks would share: "
                "give a function that makes one."
            )
        if not timeout_minutes > 0:
            raise ValueError(f"timeout_minutes is {timeout_minutes}: give a positive number, such as 10.")
        super().__init__(
            ddp_comm_hook=ddp_comm_hook, ddp_comm_state=ddp_comm_state,
            timeout=timedelta(minutes=timeout_minutes), **options,
        )  # fmt: skip
        self.reducers: dict[str, DistributedDataParallel] = {}

    def setup_environment(self) -> None:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            end_with_parent()
        super().setup_environment()

    def configure_ddp(self) -> None:
        if self.world_size == 1:
            return
        assert self.lightning_module is not None
        self._compare_images_seen()
        for name, network in self.lightning_module.named_children():
            if any(parameter.requires_grad for parameter in network.parameters()):
                self.reducers[name] = DistributedDataParallel(
                    network, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs
                )  # not on a stream of its own, as Lightning's: each backward pass would wait for it
        self._register_ddp_hooks()

    def _compare_images_seen(self) -> None:
        """Raises a RuntimeError on all ranks if one of them resumes from another checkpoint."""
        images: list[int] = [0] * self.world_size
        dist.all_gather_object(images, getattr(self.lightning_module, "images_seen", 0))
        for rank, count in enumerate(images):
            if count != images[0]:
                raise RuntimeError(
                    f"Rank {rank} resumes after {count:,} images and rank 0 after {images[0]:,}: give all of "
                    "them the same checkpoint, in a folder that all machines share."
                )

    def _register_ddp_hooks(self) -> None:
        for reducer in self.reducers.values():
            state = self._ddp_comm_state() if callable(self._ddp_comm_state) else None
            _register_ddp_comm_hook(reducer, state, self._ddp_comm_hook, self._ddp_comm_wrapper)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Prepares the reducers of the networks that are not frozen."""
        for reducer in self.reducers.values():
            if any(parameter.requires_grad for parameter in reducer.module.parameters()):
                prepare_for_backward(reducer, closure_loss)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Raises a RuntimeError if some weights of a network have no gradient: its reducer waits for all."""
        for name, reducer in self.reducers.items():
            unfrozen = {key: each for key, each in reducer.module.named_parameters() if each.requires_grad}
            idle = [key for key, weight in unfrozen.items() if weight.grad is None]
            if idle and len(idle) < len(unfrozen) and not reducer.find_unused_parameters:
                raise RuntimeError(
                    f"{name}.{idle[0]} got no gradient in an update of {name}, and other devices would wait "
                    "for it: remove or freeze it, or give the strategy find_unused_parameters=True."
                )

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Backward passes in here are not reduced; gradients add up until the next pass outside."""
        with ExitStack() as stack:
            for reducer in self.reducers.values():
                stack.enter_context(reducer.no_sync())
            yield

    def on_exception(self, exception: BaseException) -> None:
        """Kills the ranks that this process launched: one of them may hang."""
        super().on_exception(exception)
        if isinstance(exception, Exception) and self.launcher is not None:
            self.launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))

    def teardown(self) -> None:
        self.reducers.clear()
        super().teardown()


def register() -> None:
    """Lets `Trainer(strategy="adversarial_ddp")` find the strategy; recipes do this by themselves."""
    strategy = AdversarialDDPStrategy
    StrategyRegistry.register("adversarial_ddp", strategy, description=strategy.__doc__, override=True)
