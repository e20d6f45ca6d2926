"""Treatments of the feedback: what becomes of it on its way from the discriminator into the generator.

A transform leaves samples as they are and changes only the gradient that passes back through them.
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
    """A change of the feedback [B, *sample_shape], one row for each fake."""

    @abstractmethod
    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        """The feedback that the generator gets; `noise` is that of its turn."""


class Identity(GradientTransform):
    """As it comes."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback


class Zero(GradientTransform):
    """Nothing comes."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return torch.zeros_like(feedback)


class Sign(GradientTransform):
    """Of every value only whether it should rise or fall; each sample keeps the mean size of its own."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        size = feedback.flatten(1).abs().mean(1).view(-1, *[1] * (feedback.ndim - 1))
        return feedback.sign() * size


class Shuffled(GradientTransform):
    """Each sample gets the feedback of another."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback.roll(1, 0)


class BatchMean(GradientTransform):
    """Each sample gets the mean over the batch: what all of them are told alike."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback.mean(0, keepdim=True).expand_as(feedback)


class ShuffledResidual(GradientTransform):
    """Each sample gets the feedback of another, less what all of them are told alike."""

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return (feedback - feedback.mean(0)).roll(1, 0)


@dataclass
class Noised(GradientTransform):
    """With Gaussian noise, `level` times as large as the feedback of each sample."""

    level: float

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        size = feedback.flatten(1).square().mean(1).sqrt().view(-1, *[1] * (feedback.ndim - 1))
        return feedback + self.level * size * noise.stream("treatment").normal(*feedback.shape[1:]).to(
            feedback
        )


@dataclass
class Delayed(GradientTransform):
    """From the discriminator as it was so many iterations ago, on the fakes of today."""

    iterations: int
    history: deque[dict[str, Tensor]] = field(default_factory=deque, repr=False)

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback


@dataclass
class LastBlocks(GradientTransform):
    """Through the last blocks of the generator only: what lies before them does not learn."""

    count: int

    def __call__(self, feedback: Tensor, noise: Noise) -> Tensor:
        return feedback


class TransformedGAN(GAN):
    """A GAN whose generator gets its feedback by way of a transform; all else is the game as it is."""

    def __init__(self, *arguments: Any, transform: GradientTransform, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.transform = transform
        if isinstance(transform, LastBlocks):
            for block in generator_blocks(self.generator)[: -transform.count]:
                block.requires_grad_(False)

    def generate(self, condition: Tensor | None, noise: Noise) -> Tensor:
        fake = super().generate(condition, noise)
        if fake.requires_grad:  # in the generator's update
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
        """The discriminator of `iterations` ago, or of the start where there was none."""
        assert isinstance(self.transform, Delayed)
        state = {name: value.detach().clone() for name, value in self.discriminator.state_dict().items()}
        self.transform.history.append(state)
        if len(self.transform.history) > self.transform.iterations + 1:
            self.transform.history.popleft()
        old = self.transform.history[0]
        return lambda samples, labels: functional_call(self.discriminator, old, (samples, labels))


def generator_blocks(generator: nn.Module) -> list[nn.Module]:
    """Parts of a generator that learn, from the latents on: its layers with weights."""
    return [
        part for part in generator.modules()
        if not list(part.children()) and any(True for _ in part.parameters(recurse=False))
    ]  # fmt: skip
