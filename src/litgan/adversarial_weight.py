"""How strongly the generator listens to its adversary, beside the reconstruction terms.

A `litgan.schedules.Linear` from 0 to 1 lets the adversary in late, and along a ramp.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from litgan.losses import to_float32
from litgan.schedules import Schedule, largest, value_at

DELTA = 1e-6


class AdaptiveWeight(Schedule):
    """The weight of the adversarial loss in VQGAN, Esser et al. 2021, eq. 7, times `weight`:

        lambda = ||grad_L reconstruction|| / (||grad_L adversarial|| + 1e-6),  at most `limit`,

    where L is the generator's `last_layer`. Gradients are those of the whole batch, over all ranks and
    micro-batches: those of the adversarial loss in the parts before the last one are added up until then.

    Args:
        weight: a number, or a schedule that lets the adversary in; 0.8 in the authors' recipes.
        limit: of lambda; 10,000 in the authors' code.
    """

    def __init__(self, weight: float | Schedule = 1.0, limit: float = 1e4) -> None:
        self.weight, self.limit = weight, limit
        self.update = -1  # to which the following belong
        self.losses: list[Tensor] = []  # adversarial, of each part
        self.of_layer: list[Tensor] = []  # gradients of both losses in the last layer, of each part
        self.of_weights: list[Tensor] = []  # sums over parts of the gradients of the adversarial loss

    def __call__(self, images_seen: int) -> float:
        return value_at(self.weight, images_seen)

    def balance(self, adversarial: Tensor, rest: Tensor, gan: Any) -> Tensor:
        """The weighted loss of one part of the batch: 0, and for the last part that of all of them."""
        if self.update != gan.discriminator_updates:
            self.update = gan.discriminator_updates
            self.losses, self.of_layer, self.of_weights = [], [], []
        layer = gan.generator.last_layer
        both = [torch.autograd.grad(loss, layer, retain_graph=True)[0] for loss in (rest, adversarial)]
        self.of_layer.append(to_float32(torch.stack(both)))
        self.losses.append(adversarial.detach())
        weights = [weight for weight in gan.parameters() if weight.requires_grad]  # all others are frozen
        if len(self.losses) < gan.micro_batches:
            gradients = torch.autograd.grad(
                adversarial, weights, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            earlier = self.of_weights or [torch.zeros_like(weight) for weight in weights]
            self.of_weights = list(torch._foreach_add(earlier, gradients))
            return torch.zeros_like(adversarial)
        means = torch.stack(self.of_layer).mean(0)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(means)
            means /= dist.get_world_size()
        of_rest, of_adversary = means.flatten(1).norm(dim=1)
        factor = self(gan.images_seen) * (of_rest / (of_adversary + DELTA)).clamp(max=self.limit)
        # Linear in the weights: a term whose gradient is that of the parts before.
        pairs = zip(weights, self.of_weights, strict=False)
        linear = sum(((weight * gradient).sum() for weight, gradient in pairs), adversarial)
        total, self.update = torch.stack(self.losses).sum(), -1
        return factor * (linear - linear.detach() + total)


def present_weight(gan: Any) -> float:
    """The weight of the adversarial loss in this update: 0 before the discriminator's first step."""
    seen_before = gan.images_seen - gan.images_per_iteration / gan.discriminator_steps  # its last step
    if seen_before < gan.discriminator_start:
        return 0.0  # what has not learned has nothing to teach
    return value_at(gan.adversarial_weight, gan.images_seen)


def weigh(weight: float | Schedule, adversarial: Tensor, rest: Tensor, gan: Any) -> Tensor:
    """The adversarial loss of one part of the batch as it is added to the `rest` of the generator's loss."""
    if isinstance(weight, AdaptiveWeight):
        return weight.balance(adversarial, rest, gan)
    return value_at(weight, gan.images_seen) * adversarial


def check_generator_loss(gan: Any) -> None:
    """Raises ValueError, one sentence, if the generator has nothing to learn from, or no adaptive weight."""
    name, weight = "adversarial_weight", gan.adversarial_weight
    largest(name, weight)
    if not gan.reconstruction and present_weight(gan) == 0:
        start = gan.discriminator_start
        culprit = f"discriminator_start is {start}" if value_at(weight, gan.images_seen) else f"{name} is 0"
        raise ValueError(
            f"{culprit} after {gan.images_seen:,} images, and there is no reconstruction: the generator has "
            "nothing to learn from; give either."
        )
    if not isinstance(weight, AdaptiveWeight):
        return
    if not gan.reconstruction or not isinstance(getattr(gan.generator, "last_layer", None), Tensor):
        raise ValueError(
            "AdaptiveWeight compares two gradients in the generator's last_layer: give reconstruction terms "
            "and a generator with this attribute, or a number as adversarial_weight."
        )
    if str(gan.trainer.precision).startswith("16"):
        raise ValueError(
            "AdaptiveWeight compares gradients too small for float16: give --trainer.precision bf16-mixed or "
            "32-true, or a number as adversarial_weight."
        )
