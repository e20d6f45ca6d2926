"""One-stage training: the generator step reuses the discriminator's pass over the fakes, and its gradient.

The gradient of the discriminator's loss in fake i is L_D'(D(x_i)) * dD/dx_i, that of the generator's loss is
L_G'(D(x_i)) * dD/dx_i. If D treats samples independently, the two differ by one factor per sample:

    feedback_i = L_G'(D(x_i)) / L_D'(D(x_i)) * gradient_i

(Shen et al. 2021, "Training generative adversarial networks in one stage", eq. 7 to 9). The gradient of
<feedback, G(z)> in the generator's weights is that of its loss, so one pass through each network per
iteration suffices instead of two. Both updates start from the same state: they are simultaneous, not
alternating, and can diverge where alternating ones converge. configs/zoo/overlays/one_stage.yaml therefore
warms the learning rate up.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from litgan.condition import Condition, probe
from litgan.gan import GAN, Logs
from litgan.losses import AdversarialLoss
from litgan.noise import Noise, torch_generator
from litgan.penalties import Penalty


@dataclass
class FakePass:
    """What the discriminator step stores for the generator step."""

    generated: Tensor  # fakes [B, *sample_shape], with the generator's graph
    fake: Tensor  # the same, detached: a leaf that accumulates the discriminator step's gradient
    real_logits: Tensor  # [B, 1], detached
    fake_logits: Tensor
    gradient: Tensor | None  # of the loss alone, if penalties add theirs to that of the leaf


class OneStageGAN(GAN):
    """A GAN whose generator step reuses the discriminator step's pass over the fakes, and its gradient.

    Raises ValueError: in the constructor, the loss or the discriminator does not allow it
    (`check_one_stage`); before training, the precision is float16.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.reconstruction or self.adversarial_weight != 1 or self.discriminator_start:
            raise ValueError(
                "OneStageGAN has no reconstruction, adversarial_weight or discriminator_start: leave them "
                "out, or take litgan.GAN."
            )
        if not torch.empty(0).is_meta:  # meta tensors have no values to check
            check_one_stage(self.loss, self.discriminator, self.sample_shape, self.condition)
        self.cached_passes: list[FakePass] = []  # one for each micro-batch

    def setup(self, stage: str) -> None:
        if self.trainer.precision_plugin.precision == "16-mixed":
            raise ValueError(
                "OneStageGAN has one backward pass, which cannot carry the loss scales of both networks: "
                "give --trainer.precision bf16-mixed or 32-true, or take litgan.GAN."
            )
        super().setup(stage)

    def on_train_start(self) -> None:
        super().on_train_start()
        self.cached_passes.clear()

    def discriminator_loss(self, real: Tensor, condition: Tensor | None, noise: Noise) -> tuple[Tensor, Logs]:
        if (self.discriminator_updates + 1) % self.discriminator_steps:  # not the last discriminator step
            return super().discriminator_loss(real, condition, noise)
        with unfrozen(self.generator):
            generated = self.generate(condition, noise)
        fake = generated.detach().requires_grad_()
        loss, logs = self.loss_of_samples(condition, noise, real=real, fake=fake)

        gradient = None
        for penalty in self.penalties:
            if (value := logs.get(f"penalty/{penalty.name}")) is None:
                continue
            if "fake" not in penalty.differentiates:
                check_penalty(penalty, value, fake)
            elif gradient is None:
                (gradient,) = torch.autograd.grad(logs["loss/discriminator"], fake, retain_graph=True)
        logits = logs["logits/real"].detach(), logs["logits/fake"].detach()
        self.cached_passes.append(FakePass(generated, fake, *logits, gradient))
        return loss, logs

    def generator_loss(self, real: Tensor, condition: Tensor | None, noise: Noise) -> tuple[Tensor, Logs]:
        """A scalar with the gradient of the generator's loss on the oldest cached pass; logs that loss."""
        cached = self.cached_passes.pop(0)
        gradient = cached.fake.grad if cached.gradient is None else cached.gradient
        assert gradient is not None  # set by the discriminator step's backward pass
        ratio = gradient_ratio(self.loss, real=cached.real_logits, fake=cached.fake_logits)
        feedback = gradient * ratio.reshape(-1, *[1] * (gradient.ndim - 1)).to(gradient.dtype)
        # Undoes the division of the backward pass.
        scale = self.micro_batches if cached.gradient is None else 1
        value = self.loss.generator(real=cached.real_logits, fake=cached.fake_logits).mean()
        return scale * (feedback * cached.generated).sum(), {"loss/generator": value}


@contextmanager
def unfrozen(network: nn.Module) -> Iterator[None]:
    """All parameters of the network require gradients in this context."""
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def gradient_ratio(loss: AdversarialLoss, *, real: Tensor, fake: Tensor) -> Tensor:
    """L_G' / L_D', the ratio of the derivatives of the two losses in the fakes' logits, [B, 1].

    Zero where L_D' is zero or below the smallest normal float32 (`NonSaturating`: logits below -87): these
    fakes contribute no gradient.
    """
    with torch.enable_grad():
        logits = fake.detach().float().requires_grad_()
        (of_generator,) = torch.autograd.grad(loss.generator(real=real, fake=logits).sum(), logits)
        (of_discriminator,) = torch.autograd.grad(loss.discriminator(real=real, fake=logits).sum(), logits)
    vanished = of_discriminator.abs() < torch.finfo(torch.float32).tiny
    return torch.where(vanished, 0.0, of_generator / of_discriminator)


def check_penalty(penalty: Penalty, value: Tensor, fake: Tensor) -> None:
    """Checks that a penalty without "fake" in `differentiates` has no gradient in the fakes.

    Raises RuntimeError: it has one, which would change the generator's gradient.
    """
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), fake, retain_graph=True, allow_unused=True)
    if gradient is not None:
        raise RuntimeError(
            f"Penalty {penalty.name!r} depends on the fakes, which OneStageGAN must know: "
            'name "fake" in its `differentiates`, or take litgan.GAN.'
        )


def check_one_stage(
    loss: AdversarialLoss, discriminator: nn.Module, sample_shape: tuple[int, ...], condition: Condition
) -> None:
    """Checks that the generator's gradient follows from the discriminator's.

    Raises ValueError: the discriminator mixes the samples of a batch or has several logits per sample, or the
    loss has zero gradient for some fakes, as hinge has for fakes with logits below -1.
    """
    # Between the integers, where some losses have isolated zeros.
    logits = torch.linspace(-2.9, 3.1, 13)[:, None]
    if (gradient_ratio(loss, real=torch.zeros_like(logits), fake=logits) == 0).any():
        raise ValueError(
            f"OneStageGAN cannot train this: {type(loss).__name__} has no gradient at fakes that the "
            "discriminator classifies with a margin: take NonSaturating, or litgan.GAN."
        )
    network = copy.deepcopy(discriminator).train()  # the probe changes running statistics
    has_batch_norm = any(isinstance(part, _BatchNorm) for part in network.modules())
    samples = torch.randn(4, *sample_shape, generator=torch_generator("one stage")).requires_grad_()
    logits = network(samples, probe(condition, 4))
    (gradient,) = torch.autograd.grad(logits[0].sum(), samples)
    if has_batch_norm or getattr(discriminator, "uses_batch_statistics", False) or gradient[1:].any():
        raise ValueError(
            f"OneStageGAN cannot train this: {type(discriminator).__name__} mixes the samples of a batch "
            "(batch norm, minibatch statistics): take a discriminator that does not, or litgan.GAN."
        )
    if logits.shape[1] != 1:
        raise ValueError(
            f"OneStageGAN cannot train this: {type(discriminator).__name__} gives {logits.shape[1]} logits "
            "for each sample: take one that gives 1, or litgan.GAN."
        )
