"""One stage: the discriminator's pass over the fakes, and its way back, serve the generator's turn too.

The discriminator's loss sends  L_D'(D(x_i)) * dD/dx_i  back to fake i, the generator's would send
L_G'(D(x_i)) * dD/dx_i. Where samples do not see each other in D, each has a ratio of the two of its own, and

    feedback_i = L_G'(D(x_i)) / L_D'(D(x_i)) * gradient_i

(Shen et al. 2021, "Training generative adversarial networks in one stage", eq. 7 to 9). The generator then
descends <feedback, G(z)>, whose gradient is that of its own loss: one pass through each network an iteration
instead of two. Both adversaries move from the same state: simultaneous, not alternating, updates, which can
lose a game that alternating ones hold: configs/overlays/one_stage.yaml warms the learning rate up.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from litgan.losses import AdversarialLoss
from litgan.noise import torch_generator
from litgan.penalties import Penalty


@dataclass
class Pass:
    """What a discriminator turn knows of its fakes."""

    drawn: Tensor  # [B, *sample_shape], with the generator's graph
    fake: Tensor  # the same, cut off: a leaf, whose gradient the turn's backward pass leaves in it
    real_logits: Tensor  # [B, 1], without a graph
    fake_logits: Tensor
    gradient: Tensor | None = None  # of the loss alone, where a penalty adds its own to the leaf's


class OneStage:
    """Hands what the discriminator's turn learned about its fakes to the generator's turn."""

    def __init__(self) -> None:
        self.passes: list[Pass] = []  # one for each micro-batch

    def keep(
        self,
        drawn: Tensor,
        fake: Tensor,
        penalised: Tensor | None,
        *,
        real_logits: Tensor,
        fake_logits: Tensor,
    ) -> None:
        """Remembers a part of the batch until the generator's turn.

        Args:
            drawn: fakes [B, *sample_shape] with the generator's graph.
            fake: the same, cut off: the leaf that the discriminator judged.
            penalised: the loss, if a penalty will add its own gradient to the leaf's.
            real_logits: the discriminator's [B, 1] of the reals.
            fake_logits: the discriminator's [B, 1] of the fakes.
        """
        gradient = None if penalised is None else torch.autograd.grad(penalised, fake, retain_graph=True)[0]
        self.passes.append(Pass(drawn, fake, real_logits.detach(), fake_logits.detach(), gradient))

    def objective(self, loss: AdversarialLoss, parts: int) -> tuple[Tensor, Tensor]:
        """A scalar with the gradient of the generator's loss over the oldest part kept, and that loss.

        Args:
            loss: the game's.
            parts: micro-batches of the turn: the gradients that were left in the fakes are divided by it.
        """
        kept = self.passes.pop(0)
        gradient = kept.fake.grad if kept.gradient is None else kept.gradient
        assert gradient is not None  # the discriminator's turn has passed back through the fakes
        ratio = feedback_ratio(loss, real=kept.real_logits, fake=kept.fake_logits)
        feedback = gradient * ratio.reshape(-1, *[1] * (gradient.ndim - 1)).to(gradient.dtype)
        scale = parts if kept.gradient is None else 1
        value = loss.generator(real=kept.real_logits, fake=kept.fake_logits).mean()
        return scale * (feedback * kept.drawn).sum(), value


@contextmanager
def learning(network: nn.Module) -> Iterator[None]:
    """In here the network's graph is recorded, even if it is not its turn."""
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def feedback_ratio(loss: AdversarialLoss, *, real: Tensor, fake: Tensor) -> Tensor:
    """L_G' / L_D', the derivatives of the two losses in the fakes' logits, [B, 1] like these.

    Zero where the discriminator's derivative is zero, or too small for float32 (with `NonSaturating` from
    logits of -87 down): such a fake sends nothing back.
    """
    with torch.enable_grad():
        logits = fake.detach().float().requires_grad_()
        (of_generator,) = torch.autograd.grad(loss.generator(real=real, fake=logits).sum(), logits)
        (of_discriminator,) = torch.autograd.grad(loss.discriminator(real=real, fake=logits).sum(), logits)
    silent = of_discriminator.abs() < torch.finfo(torch.float32).tiny
    return torch.where(silent, 0.0, of_generator / of_discriminator)


def check_penalty(penalty: Penalty, value: Tensor, fake: Tensor) -> None:
    """Looks whether a penalty that does not say so adds to the gradient that its turn leaves in the fakes.

    Raises:
        RuntimeError: one sentence, if it does: the generator would learn from the penalty too.
    """
    if "fake" not in penalty.differentiates:  # then nothing leads to the fakes, and this walk is short
        (gradient,) = torch.autograd.grad(value.sum(), fake, retain_graph=True, allow_unused=True)
        if gradient is not None:
            raise RuntimeError(
                f"update is one_stage, and penalty {penalty.name!r} depends on the fakes without saying so: "
                'name "fake" in its `differentiates`, or update alternating.'
            )


def check_one_stage(
    loss: AdversarialLoss, discriminator: nn.Module, sample_shape: tuple[int, ...], num_classes: int
) -> None:
    """Looks whether one pass can serve both turns.

    Raises:
        ValueError: one sentence, if samples see each other in the discriminator, if it gives several logits
            a sample, or if its loss sends nothing back from fakes that it knows already (hinge).
    """
    probe = torch.linspace(-2.9, 3.1, 13)[:, None]  # beside the isolated zeros at integers
    if (feedback_ratio(loss, real=torch.zeros_like(probe), fake=probe) == 0).any():
        raise ValueError(
            f"update is one_stage, but {type(loss).__name__} sends nothing back from fakes that the "
            "discriminator knows already: take NonSaturating, or update alternating."
        )
    network = copy.deepcopy(discriminator).train()  # the probe moves running statistics
    mixing = any(isinstance(part, _BatchNorm) for part in network.modules())
    samples = torch.randn(4, *sample_shape, generator=torch_generator("one stage")).requires_grad_()
    logits = network(samples, torch.zeros(4, dtype=torch.long) if num_classes else None)
    (gradient,) = torch.autograd.grad(logits[0].sum(), samples)
    if mixing or getattr(discriminator, "mixes_samples", False) or gradient[1:].any():
        raise ValueError(
            f"update is one_stage, but samples see each other in {type(discriminator).__name__} (batch norm, "
            "minibatch statistics): take a discriminator without them, or update alternating."
        )
    if logits.shape[1] != 1:
        raise ValueError(
            f"update is one_stage, but {type(discriminator).__name__} gives {logits.shape[1]} logits for "
            "each sample: take one that gives 1, or update alternating."
        )
