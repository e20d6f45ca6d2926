"""One stage: the discriminator's pass over the fakes, and its gradient, serve the generator too.

The discriminator's loss sends  L_D'(D(x_i)) * dD/dx_i  back to fake i, the generator's would send
L_G'(D(x_i)) * dD/dx_i. Where samples do not see each other in D, each has a ratio of the two of its own, and

    feedback_i = L_G'(D(x_i)) / L_D'(D(x_i)) * gradient_i

(Shen et al. 2021, "Training generative adversarial networks in one stage", eq. 7 to 9). The generator then
descends <feedback, G(z)>, whose gradient is that of its own loss: one pass through each network an iteration
instead of two. Both networks move from the same state: updates are simultaneous instead of alternating and
can diverge where alternating ones converge: configs/zoo/overlays/one_stage.yaml warms the learning rate up.
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

from litgan.gan import GAN, Logs
from litgan.losses import AdversarialLoss
from litgan.noise import Noise, torch_generator
from litgan.penalties import Penalty


@dataclass
class FakePass:
    """What the discriminator step keeps of its fake samples."""

    generated: Tensor  # [B, *sample_shape], with the generator's graph
    fake: Tensor  # the same, detached: the leaf in which the discriminator step leaves a gradient
    real_logits: Tensor  # [B, 1], without a graph
    fake_logits: Tensor
    gradient: Tensor | None  # of the loss alone, where a penalty adds its own to the leaf's


class OneStageGAN(GAN):
    """A GAN whose generator step uses the discriminator step's pass over the fakes, and its gradient.

    Raises:
        ValueError: at the construction, if one pass cannot serve both steps (`check_one_stage`); before
            training, under float16.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if not torch.empty(0).is_meta:  # there weights have no values
            check_one_stage(self.loss, self.discriminator, self.sample_shape, self.num_classes)
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
        if (self.discriminator_updates + 1) % self.discriminator_steps:  # no generator step follows
            return super().discriminator_loss(real, condition, noise)
        with unfrozen(self.generator):
            generated = self.augmented(self.generate(condition, noise), noise.stream("fake"))
        fake = generated.detach().requires_grad_()
        real = self.augmented(real, noise.stream("real"))
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
        """A scalar with the gradient of the generator's loss on the oldest pass kept; logs that loss."""
        cached = self.cached_passes.pop(0)
        gradient = cached.fake.grad if cached.gradient is None else cached.gradient
        assert gradient is not None  # the discriminator step has passed back through the fakes
        ratio = gradient_ratio(self.loss, real=cached.real_logits, fake=cached.fake_logits)
        feedback = gradient * ratio.reshape(-1, *[1] * (gradient.ndim - 1)).to(gradient.dtype)
        scale = self.micro_batches if cached.gradient is None else 1  # backward passes divide by it
        value = self.loss.generator(real=cached.real_logits, fake=cached.fake_logits).mean()
        return scale * (feedback * cached.generated).sum(), {"loss/generator": value}


@contextmanager
def unfrozen(network: nn.Module) -> Iterator[None]:
    """In here the network's graph is recorded, though another network is updated."""
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def gradient_ratio(loss: AdversarialLoss, *, real: Tensor, fake: Tensor) -> Tensor:
    """L_G' / L_D', the derivatives of the two losses in the fakes' logits, [B, 1] like these.

    Zero where the discriminator's derivative is zero, or too small for float32 (with `NonSaturating` from
    logits of -87 down): such a fake sends nothing back.
    """
    with torch.enable_grad():
        logits = fake.detach().float().requires_grad_()
        (of_generator,) = torch.autograd.grad(loss.generator(real=real, fake=logits).sum(), logits)
        (of_discriminator,) = torch.autograd.grad(loss.discriminator(real=real, fake=logits).sum(), logits)
    vanished = of_discriminator.abs() < torch.finfo(torch.float32).tiny
    return torch.where(vanished, 0.0, of_generator / of_discriminator)


def check_penalty(penalty: Penalty, value: Tensor, fake: Tensor) -> None:
    """Checks whether a penalty that does not say so adds to the gradient that its update leaves in the fakes.

    Raises:
        RuntimeError: one sentence, if it does: the generator would learn from the penalty too.
    """
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), fake, retain_graph=True, allow_unused=True)
    if gradient is not None:
        raise RuntimeError(
            f"Penalty {penalty.name!r} depends on the fakes without saying so, which OneStageGAN must know: "
            'name "fake" in its `differentiates`, or take litgan.GAN.'
        )


def check_one_stage(
    loss: AdversarialLoss, discriminator: nn.Module, sample_shape: tuple[int, ...], num_classes: int
) -> None:
    """Checks whether one pass can serve both updates.

    Raises:
        ValueError: one sentence, if samples see each other in the discriminator, if it gives several logits
            a sample, or if its loss sends nothing back from fakes that it knows already (hinge).
    """
    probe = torch.linspace(-2.9, 3.1, 13)[:, None]  # beside the isolated zeros at integers
    if (gradient_ratio(loss, real=torch.zeros_like(probe), fake=probe) == 0).any():
        raise ValueError(
            f"OneStageGAN cannot train this: {type(loss).__name__} sends nothing back from fakes that the "
            "discriminator knows already: take NonSaturating, or litgan.GAN."
        )
    network = copy.deepcopy(discriminator).train()  # the probe moves running statistics
    has_batch_norm = any(isinstance(part, _BatchNorm) for part in network.modules())
    samples = torch.randn(4, *sample_shape, generator=torch_generator("one stage")).requires_grad_()
    logits = network(samples, torch.zeros(4, dtype=torch.long) if num_classes else None)
    (gradient,) = torch.autograd.grad(logits[0].sum(), samples)
    if has_batch_norm or getattr(discriminator, "mixes_samples", False) or gradient[1:].any():
        raise ValueError(
            f"OneStageGAN cannot train this: samples see each other in {type(discriminator).__name__} (batch "
            "norm, minibatch statistics): take a discriminator without them, or litgan.GAN."
        )
    if logits.shape[1] != 1:
        raise ValueError(
            f"OneStageGAN cannot train this: {type(discriminator).__name__} gives {logits.shape[1]} logits "
            "for each sample: take one that gives 1, or litgan.GAN."
        )
