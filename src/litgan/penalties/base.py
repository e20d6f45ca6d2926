"""What the adversaries minimise besides the game: one unweighted value per sample.

The training step minimises  loss + weight * every * penalty,  on every `every`-th discriminator turn
only (lazy regularisation, Karras et al. 2020, appendix B). In the equations D(x) is the mean of a
sample's K logits and the norm runs over all of the sample's elements, whatever its shape. A
discriminator that mixes samples (batch norm) has no gradient per sample: use another norm with it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from litgan.losses import widen
from litgan.noise import Noise
from litgan.schedules import Schedule


class Penalty(ABC):
    """A term of the discriminator's loss, called as `penalty(discriminator, real=..., fake=..., ...) -> [B]`.

    Args:
        weight: Factor of the penalty: a number of at least 0, or a schedule of `images_seen`.
        every: Applied on every `every`-th discriminator turn, times `every`.

    Raises:
        ValueError: `weight` is negative or not finite, or `every` is not an integer of at least 1.
    """

    name: ClassVar[str]  # logged as penalty/<name>
    # "real", "fake": require grad before the pass. Name "fake" also where `fake_logits` enter: one stage has
    # to tell the loss's gradient from the penalty's.
    differentiates: ClassVar[tuple[str, ...]] = ()
    neighbourhood: float = 0.0  # deviation of latents around the fakes', whose samples come as `near`

    def __init__(self, weight: float | Schedule = 1.0, every: int = 1) -> None:
        check_rates(self, weight, every)
        self.weight = weight
        self.every = every

    @abstractmethod
    def __call__(
        self,
        discriminator: Callable[..., Tensor],
        *,
        real: Tensor,
        fake: Tensor,
        real_logits: Tensor,
        fake_logits: Tensor,
        labels: Tensor | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        """The penalty [B], differentiable in the discriminator's parameters.

        Args:
            discriminator: For penalties that look at other points than the loss did.
            real: Real samples [B, *sample_shape].
            fake: Generated samples [B, *sample_shape].
            real_logits: The discriminator's logits [B, K] of `real`, graph included.
            fake_logits: The discriminator's logits [B, K] of `fake`, graph included.
            labels: Classes [B] that both were judged with, or None.
            noise: Where random points come from; None draws from torch's global generator.

        Raises:
            RuntimeError: The logits do not lead back to the samples that `differentiates` names.
        """

    def settle(self, sample_shape: tuple[int, ...], batch_size: int) -> None:  # noqa: B027
        """Told before training of one sample's shape and how many a turn shows, over all ranks."""

    def gradients(self, *, samples: Tensor, logits: Tensor) -> Tensor:
        """Each sample's gradient of its mean logit, flattened, in at least float32: [B, N]."""
        gradient = None
        if samples.requires_grad and logits.requires_grad:
            # Sample i's logits depend on sample i alone, so one pass through the sum gives all B gradients.
            total = widen(logits).flatten(1).mean(1).sum()
            (gradient,) = torch.autograd.grad(total, samples, create_graph=True, allow_unused=True)
        if gradient is None:
            raise RuntimeError(
                f"Penalty {self.name!r} finds no way back from the logits to the samples: what its "
                f"`differentiates` names, {self.differentiates}, must require grad before the pass through "
                "the discriminator, with grad enabled."
            )
        return widen(gradient).flatten(1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weight={self.weight!r}, every={self.every})"


class GeneratorPenalty(ABC):
    """A term of the generator's loss, called as `penalty(generator, latents=..., ...) -> [B]`.

    Args:
        weight: Factor of the penalty: a number of at least 0, or a schedule of `images_seen`.
        every: Applied in every `every`-th turn of the generator, times `every`.

    Raises:
        ValueError: `weight` is negative or not finite, or `every` is not an integer of at least 1.
    """

    name: ClassVar[str]  # logged as penalty/<name>

    def __init__(self, weight: float | Schedule = 1.0, every: int = 1) -> None:
        check_rates(self, weight, every)
        self.weight = weight
        self.every = every

    @abstractmethod
    def __call__(
        self, generator: Any, *, latents: Tensor, labels: Tensor | None = None, noise: Noise | None = None
    ) -> Tensor:
        """The penalty [B], differentiable in the generator's parameters.

        Args:
            generator: In training mode.
            latents: [B, latent_dim].
            labels: Classes [B], or None.
            noise: Where random numbers come from; None draws from torch's global generator.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weight={self.weight!r}, every={self.every})"


def check_rates(owner: object, weight: float | Schedule, every: int) -> None:
    """Refuses what is no weight or no period.

    Raises:
        ValueError: `weight` is negative or not finite, or `every` is not an integer of at least 1.
    """
    if not isinstance(weight, Schedule) and not 0 <= weight < math.inf:
        raise ValueError(
            f"{type(owner).__name__} has weight={weight!r}: "
            "give a finite number of at least 0, or a schedule of images_seen."
        )
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(
            f"{type(owner).__name__} has every={every!r}: "
            "give the period in discriminator turns, an integer of at least 1."
        )
