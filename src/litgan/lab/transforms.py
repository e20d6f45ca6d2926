"""Transforms of the feedback dL/dx between the discriminator and the generator.

They change only the gradient in the generator's backward pass; samples stay the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from litgan.gan import GAN, Logs
from litgan.noise import Noise


class GradientTransform(ABC):
    """Maps the feedback dL/dx of a batch to what the generator receives, both [B, *sample_shape]."""

    @abstractmethod
    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        """Returns the transformed feedback; `noise` is the random stream of this generator step."""


class Identity(GradientTransform):
    """The feedback unchanged."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback


class Zero(GradientTransform):
    """No feedback."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return torch.zeros_like(feedback)


class Sign(GradientTransform):
    """Only the signs, scaled to the mean absolute value of each sample."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        size = feedback.flatten(1).abs().mean(1).view(-1, *[1] * (feedback.ndim - 1))
        return feedback.sign() * size


class Shuffled(GradientTransform):
    """Each sample gets the feedback of another sample of the batch."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback.roll(1, 0)


class BatchMean(GradientTransform):
    """Each sample gets the mean over the batch."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback.mean(0, keepdim=True).expand_as(feedback)


class ShuffledResidual(GradientTransform):
    """Each sample gets the feedback of another, minus the mean over the batch."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return (feedback - feedback.mean(0)).roll(1, 0)


@dataclass
class Noised(GradientTransform):
    """Adds Gaussian noise whose standard deviation is `level` times the sample's RMS feedback."""

    level: float

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        size = feedback.flatten(1).square().mean(1).sqrt().view(-1, *[1] * (feedback.ndim - 1))
        return feedback + self.level * size * noise.stream("treatment").normal(*feedback.shape[1:]).to(
            feedback
        )


@dataclass
class Delayed(GradientTransform):
    """Feedback on the present fakes from the discriminator of some iterations ago."""

    iterations: int
    history: deque[dict[str, Tensor]] = field(default_factory=deque, repr=False)

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback


@dataclass
class LastBlocks(GradientTransform):
    """Trains only the last blocks of the generator; earlier blocks are frozen."""

    count: int

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback


class TransformedGAN(GAN):
    """A GAN whose generator receives transformed feedback."""

    def __init__(self, *arguments: Any, transform: GradientTransform, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.transform = transform
        if isinstance(transform, LastBlocks):
            for block in generator_blocks(self.generator)[: -transform.count]:
                block.requires_grad_(False)

    def generate(self, condition: Tensor | None, noise: Noise) -> Tensor:
        fake = super().generate(condition, noise)
        if fake.requires_grad:  # in the generator step
            fake.register_hook(lambda feedback: self.transform(feedback, noise))
        return fake

    def generator_loss(self, real: Tensor, condition: Tensor | None, noise: Noise) -> tuple[Tensor, Logs]:
        if not isinstance(self.transform, Delayed):
            return super().generator_loss(real, condition, noise)
        discriminator = self.delayed_discriminator()
        fake_logits = discriminator(self.generate(condition, noise), condition)
        real_logits = discriminator(real, condition) if self.loss.relativistic else None
        loss = self.loss.generator(real=real_logits, fake=fake_logits).mean()
        return loss, {"loss/generator": loss}

    def delayed_discriminator(self) -> Any:
        """The discriminator of `iterations` ago; the first one if there have been fewer."""
        assert isinstance(self.transform, Delayed)
        state = {name: value.detach().clone() for name, value in self.discriminator.state_dict().items()}
        self.transform.history.append(state)
        if len(self.transform.history) > self.transform.iterations + 1:
            self.transform.history.popleft()
        old = self.transform.history[0]
        return lambda samples, labels: functional_call(self.discriminator, old, (samples, labels))


def generator_blocks(generator: nn.Module) -> list[nn.Module]:
    """All layers with weights of their own, from the latents to the samples."""
    return [
        part for part in generator.modules()
        if not list(part.children()) and any(True for _ in part.parameters(recurse=False))
    ]  # fmt: skip
