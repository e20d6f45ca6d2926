"""Accumulation and clipping, which manual optimization leaves to us: per turn, per adversary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TypeAlias

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan.noise import Noise
from litgan.strategies import AdversarialDDPStrategy

Limits: TypeAlias = float | dict[str, float] | None  # one norm for every adversary, or one for each by name
Part: TypeAlias = tuple[Tensor, Tensor | None, Noise]  # samples, labels or None, and their randomness


def split(real: Tensor, labels: Tensor | None, noise: Noise, parts: int) -> Iterator[tuple[Part, bool]]:
    """A batch in equal parts, each with the noise of its own samples; true beside the last one.

    Raises:
        ValueError: if `parts` does not divide the batch.
    """
    if parts == 1:
        yield (real, labels, noise), True
        return
    size, rest = divmod(len(real), parts)
    if rest:
        raise ValueError(
            f"micro_batches is {parts}, which does not divide the {len(real)} samples of a batch that each "
            "process gets: give a divisor of that number, or another batch_size."
        )
    for start in range(0, len(real), size):
        chosen = slice(start, start + size)
        part = real[chosen], None if labels is None else labels[chosen]
        yield (*part, replace(noise, first=noise.first + start, count=size)), chosen.stop == len(real)


def unreduced(trainer: Trainer) -> AbstractContextManager[None]:
    """Backward passes in here leave their gradients on this rank, to be added to by the next."""
    return getattr(trainer.strategy, "block_backward_sync", nullcontext)()


def clip(optimizer: Optimizer, limits: Limits, name: str) -> None:
    """Scales the gradient of the adversary `name` down to its limit, by the norm over all its parameters."""
    limit = limits.get(name) if isinstance(limits, dict) else limits
    if limit is not None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        nn.utils.clip_grad_norm_(parameters, limit)


def check_limits(limits: Limits, names: list[str]) -> None:
    """Compares `clip_grad_norm` with the adversaries that there are.

    Raises:
        ValueError: if a limit is not positive, or is for none of `names`.
    """
    for name, limit in limits.items() if isinstance(limits, dict) else [(names[0], limits)]:
        if limit is not None and not limit > 0:
            raise ValueError(
                f"clip_grad_norm is {limit}: give a positive norm, or leave it out for no limit."
            )
        if name not in names:
            raise ValueError(f"clip_grad_norm names {name}: give limits for {' and '.join(names)}.")


def refuse_trainer_options(trainer: Trainer) -> None:
    """What Lightning does for networks that learn together, and cannot for adversaries.

    Raises:
        ValueError: one sentence that names what does the same here.
    """
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}, but adversaries take "
            "turns in a batch: leave it out and give model.micro_batches, which splits the batch of each."
        )
    if trainer.gradient_clip_val:
        raise ValueError(
            f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, but each adversary has its own "
            "gradient: leave it out and give model.clip_grad_norm."
        )
    strategy = trainer.strategy
    if (
        trainer.world_size > 1
        and isinstance(strategy, DDPStrategy)
        and not isinstance(strategy, AdversarialDDPStrategy)
        and not strategy._ddp_kwargs.get("find_unused_parameters")
    ):
        raise ValueError(
            "Lightning's ddp waits in each turn for gradients of all networks, of which only one learns: "
            "give trainer.strategy adversarial_ddp."
        )
