"""Many devices: each adversary reduces its own gradients, in its own turn, and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.fabric.strategies import _StrategyRegistry
from lightning.pytorch.overrides.distributed import _register_ddp_comm_hook, prepare_for_backward
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel


class AdversarialDDPStrategy(DDPStrategy):
    """Data parallelism in which every adversary has a gradient reducer of its own.

    Lightning's DDP wraps the whole module, so each backward pass waits for gradients of all networks: a
    GAN fails, or, with `find_unused_parameters`, walks the graph every time and sends the idle adversary's
    zeros along. Here every child of the module that has trainable parameters (generator, discriminator,
    whatever a subclass adds) gets a `DistributedDataParallel` of which only the reducer serves: networks
    are called directly, as often as a turn likes, with gradient or without, and right before a backward
    pass the reducers of those that are not frozen are armed. Double backward, penalties with passes of
    their own and passes that are not reduced (`block_backward_sync`) need nothing special. Names of
    weights do not change, and buffers are left to each rank once training has begun.

    A rank that dies ends the others: torchrun's agent or Lightning's launcher kills them, or their next
    reduction fails. One that hangs ends them after `timeout_minutes`.

    As `trainer.strategy: adversarial_ddp` in recipes. On one device it reduces nothing.

    Args:
        timeout_minutes: that ranks wait for one another before they fail; longer than what one rank does
            alone, such as reading a data set for the first time.
        ddp_comm_hook: communication hook for every reducer, e.g. torch's `bf16_compress_hook`.
        ddp_comm_state: makes the hook's state, once for each reducer, since PowerSGD's belongs to one.
        options: those of Lightning's DDPStrategy, and of `DistributedDataParallel` (`bucket_cap_mb`, ...).

    Raises:
        ValueError: for `static_graph`, a `ddp_comm_state` that is no function, or a timeout that is not
            positive.
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
                f"ddp_comm_state is a {type(ddp_comm_state).__name__} that all adversaries would share: "
                "give a function that makes one."
            )
        if not timeout_minutes > 0:
            raise ValueError(f"timeout_minutes is {timeout_minutes}: give a positive number, such as 10.")
        super().__init__(
            ddp_comm_hook=ddp_comm_hook, ddp_comm_state=ddp_comm_state,
            timeout=timedelta(minutes=timeout_minutes), **options,
        )  # fmt: skip
        self.reducers: dict[str, DistributedDataParallel] = {}

    def configure_ddp(self) -> None:
        if self.world_size == 1:
            return
        assert self.lightning_module is not None
        self._compare_clocks()
        for name, network in self.lightning_module.named_children():
            if any(parameter.requires_grad for parameter in network.parameters()):
                self.reducers[name] = self._setup_model(network)
        self._register_ddp_hooks()

    def _compare_clocks(self) -> None:
        """A resumed run goes on from one checkpoint.

        Raises:
            RuntimeError: on all ranks, if one of them stands elsewhere than rank zero.
        """
        clocks: list[int] = [0] * self.world_size
        dist.all_gather_object(clocks, getattr(self.lightning_module, "images_seen", 0))
        for rank, clock in enumerate(clocks):
            if clock != clocks[0]:
                raise RuntimeError(
                    f"Rank {rank} goes on after {clock:,} images and rank 0 after {clocks[0]:,}: give all of "
                    "them the same checkpoint, in a folder that all machines share."
                )

    def _register_ddp_hooks(self) -> None:
        for reducer in self.reducers.values():
            state = self._ddp_comm_state() if callable(self._ddp_comm_state) else None
            _register_ddp_comm_hook(reducer, state, self._ddp_comm_hook, self._ddp_comm_wrapper)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Arms the reducers of the networks that learn now."""
        for reducer in self.reducers.values():
            if any(parameter.requires_grad for parameter in reducer.module.parameters()):
                prepare_for_backward(reducer, closure_loss)

    def post_backward(self, closure_loss: Tensor) -> None:
        """A reducer waits for all of its network's gradients: says which one it would wait for in vain.

        Raises:
            RuntimeError: if a part of a network got a gradient and another part did not.
        """
        for name, reducer in self.reducers.items():
            learning = [
                (key, weight) for key, weight in reducer.module.named_parameters() if weight.requires_grad
            ]
            idle = [key for key, weight in learning if weight.grad is None]
            if idle and len(idle) < len(learning) and not reducer.find_unused_parameters:
                raise RuntimeError(
                    f"{name}.{idle[0]} got no gradient in a turn of {name}, and other devices would wait "
                    "for it: remove or freeze it, or give the strategy find_unused_parameters=True."
                )

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        """Backward passes in here stay on their rank; gradients add up until the next pass outside."""
        with ExitStack() as stack:
            for reducer in self.reducers.values():
                stack.enter_context(reducer.no_sync())
            yield

    def on_exception(self, exception: BaseException) -> None:
        """Ends the ranks that this process launched: one of them may hang, and nobody else would."""
        super().on_exception(exception)
        if isinstance(exception, Exception) and self.launcher is not None:
            self.launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))

    def teardown(self) -> None:
        self.reducers.clear()
        super().teardown()

    @classmethod
    def register_strategies(cls, strategy_registry: _StrategyRegistry) -> None:
        """Adds the name `adversarial_ddp` to Lightning's strategies."""
        strategy_registry.register("adversarial_ddp", cls, description=cls.__doc__, override=True)


def register() -> None:
    """Lets `Trainer(strategy="adversarial_ddp")` find the strategy; recipes do this by themselves."""
    AdversarialDDPStrategy.register_strategies(StrategyRegistry)
