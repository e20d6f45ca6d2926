"""Gradient flow: how strong the feedback still is after each layer, on its way back through both networks.

Pure functions of two networks, latents and a loss. Nothing here changes a network: gradients are returned,
not left in the parameters, and running statistics stay as they are (evaluation mode).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan.losses import AdversarialLoss
from litgan.noise import seed_device
from litgan.sampling import eval_mode

LISTS = (nn.ModuleList, nn.Sequential)
QUANTILES = (0.1, 0.5, 0.9)  # of the margins between real and fake logits
ADAMS_EPS = 1e-8  # default of torch's Adam


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network whose outputs are traced, by dotted name: its children with trainable weights.

    A child that keeps layers in lists (`ModuleList`, `Sequential`) is replaced by its children and the
    entries of these lists.
    """
    return dict(_layers(network, "", expand=not isinstance(network, LISTS)))


def _layers(module: nn.Module, prefix: str, expand: bool) -> Iterator[tuple[str, nn.Module]]:
    for name, part in module.named_children():
        if not any(weight.requires_grad for weight in part.parameters()):
            continue
        is_list = isinstance(part, LISTS)
        if expand and (is_list or any(isinstance(child, LISTS) for child in part.children())):
            yield from _layers(part, f"{prefix}{name}.", expand=not is_list)
        else:
            yield prefix + name, part


@dataclass
class BackwardTrace:
    """One forward and backward pass; gradients are those of each sample's own loss L_i.

    The norms of a layer are the mean over samples of ||dL_i/dh_i||, where h_i is all that the layer returned
    in however many calls. Layers are in the order of the forward pass.
    """

    samples: Tensor  # [B, *sample_shape]
    logits: Tensor  # [B, K]
    feedback: Tensor  # dL_i/dx_i, [B, *sample_shape]
    discriminator: dict[str, Tensor]  # norm at each layer
    generator: dict[str, Tensor]  # norm at the latents, at a float condition and at each layer

    def gradient_norms(self) -> dict[str, Tensor]:
        """The norms in the order of the backward pass: from the discriminator's output to the latents."""
        first = {f"discriminator/{name}": norm for name, norm in reversed(self.discriminator.items())}
        last = {f"generator/{name}": norm for name, norm in reversed(self.generator.items())}
        return {**first, "samples": mean_norm(self.feedback), **last}

    @classmethod
    def join(cls, parts: Sequence[BackwardTrace]) -> BackwardTrace:
        """The trace of all samples, from those of parts of them."""
        counts = torch.tensor([len(part.samples) for part in parts]).to(parts[0].feedback)

        def mean(network: str) -> dict[str, Tensor]:
            norms = [getattr(part, network) for part in parts]
            return {
                name: counts @ torch.stack([one[name] for one in norms]) / counts.sum() for name in norms[0]
            }

        samples, logits, feedback = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("samples", "logits", "feedback")
        )
        return cls(samples, logits, feedback, mean("discriminator"), mean("generator"))


def trace_gradients(
    generator: nn.Module,
    discriminator: nn.Module,
    loss: AdversarialLoss,
    latents: Tensor,
    condition: Tensor | None = None,
    *,
    real_logits: Tensor | None = None,
) -> BackwardTrace:
    """Passes latents through both networks in evaluation mode, and the generator's loss back.

    Args:
        generator: latents to samples.
        discriminator: samples to logits [B, K].
        loss: its generator's side is differentiated.
        latents: [B, latent_dim]; random layers draw the same numbers in every trace.
        condition: classes [B], a float tensor [B, ...], or None.
        real_logits: [B, K] for a relativistic loss; if None, logits of the other fakes are used instead.
    """
    # Inputs that require a gradient give a frozen generator's outputs one, too.
    inputs = {"latents": latents.detach().requires_grad_()}
    if condition is not None and condition.is_floating_point():
        inputs["condition"] = condition.detach().requires_grad_()
    seed_device(latents.device, "telescope")
    with eval_mode(generator, discriminator), torch.enable_grad():
        with hook_outputs(generator) as generator_outputs:
            samples = generator(inputs["latents"], inputs.get("condition", condition))
        with hook_outputs(discriminator) as discriminator_outputs:
            logits = discriminator(samples, condition)
        real = (logits.flip(0) if real_logits is None else real_logits).detach()
        total = loss.generator(real=real if loss.relativistic else None, fake=logits).sum()
        given = {name: [tensor] for name, tensor in inputs.items() if tensor.numel()}  # maybe no latents
        outputs = [discriminator_outputs, given | generator_outputs]
        tensors = [tensor for network in outputs for calls in network.values() for tensor in calls]
        feedback, *rest = torch.autograd.grad(
            total, [samples, *tensors], allow_unused=True, materialize_grads=True
        )
    gradients = iter(rest)
    norms = [
        {name: mean_norm(*(next(gradients) for _ in calls)) for name, calls in network.items()}
        for network in outputs
    ]
    return BackwardTrace(samples.detach(), logits.detach(), feedback, *norms)


@contextmanager
def hook_outputs(network: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """The outputs of each layer in the passes in here, call by call; layers in the order of the pass.

    Weights are frozen meanwhile: only what depends on the samples (or latents) has a gradient, not the
    embedding of a class that is added on the way.
    """
    outputs: dict[str, list[Tensor]] = {}
    trainable = [weight for weight in network.parameters() if weight.requires_grad]

    def append(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.setdefault(name, []).append(output)

    handles = [part.register_forward_hook(partial(append, name)) for name, part in layers(network).items()]
    try:
        for weight in trainable:
            weight.requires_grad = False
        yield outputs
    finally:
        for weight in trainable:
            weight.requires_grad = True
        for handle in handles:
            handle.remove()


def mean_norm(*gradients: Tensor) -> Tensor:
    """Mean over samples [B, ...] of each one's Euclidean norm, of several tensors together."""
    return torch.cat([rows(gradient) for gradient in gradients], dim=1).norm(dim=1).mean()


def mean_cosine(one: Tensor, other: Tensor) -> Tensor:
    """Mean over samples [B, ...] of the cosine between two gradients; 0 where one is zero."""
    return torch.cosine_similarity(rows(one), rows(other), dim=1, eps=1e-30).mean()


def rows(tensor: Tensor) -> Tensor:
    """[B, ...] to [B, N], float32; N may be 0."""
    return tensor.float().reshape(len(tensor), tensor[0].numel())


def trainable_params(network: nn.Module) -> list[Tensor]:
    return [weight.detach() for weight in network.parameters() if weight.requires_grad]


def clone_params(network: nn.Module) -> list[Tensor]:
    return [weight.clone() for weight in trainable_params(network)]


def param_update(before: Sequence[Tensor], network: nn.Module) -> list[Tensor]:
    """What the trainable weights have gained since `clone_params`."""
    return list(torch._foreach_sub(trainable_params(network), list(before)))


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all of them together."""
    return nn.utils.get_total_norm([tensor.detach() for tensor in tensors])


def update_ratio(before: Sequence[Tensor], network: nn.Module) -> Tensor:
    """||w - w_before|| / ||w_before|| over all trainable weights."""
    return total_norm(param_update(before, network)) / total_norm(before).clamp_min(1e-30)


def grad_below_eps(optimizer: Optimizer) -> Tensor:
    """Share of parameters (elements) whose last gradient is smaller than the optimizer's eps, or missing.

    A step of Adam is lr * m / (sqrt(v) + eps): a gradient of size eps halves it, a smaller one leaves next to
    nothing. Optimizers without an eps are compared with Adam's default.
    """
    small, count = [], 0
    for group in optimizer.param_groups:
        for weight in group["params"]:
            count += weight.numel()
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            small.append((gradient.abs() < group.get("eps", ADAMS_EPS)).sum().float())
    return torch.stack(small).sum() / count


def logit_statistics(*, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """How well the discriminator separates real from fake, from logits [B, K], B > 0.

    `sign_real` and `sign_fake` are mean signs (+1 and -1 where it is always right), `accuracy` the share of
    right ones. `auc` needs no zero, which Wasserstein and relativistic losses leave open. `margin_10`,
    `margin_50` and `margin_90` are quantiles in percent of real minus fake, sample by sample.
    """
    real, fake = real.float().mean(1), fake.float().mean(1)
    count = min(len(real), len(fake))
    margins = torch.quantile(real[:count] - fake[:count], torch.tensor(QUANTILES, device=real.device))
    return {
        "sign_real": real.sign().mean(),
        "sign_fake": fake.sign().mean(),
        "accuracy": ((real > 0).float().mean() + (fake < 0).float().mean()) / 2,
        "auc": auc(real=real, fake=fake),
        **{f"margin_{100 * q:.0f}": margin for q, margin in zip(QUANTILES, margins, strict=True)},
    }


def auc(*, real: Tensor, fake: Tensor) -> Tensor:
    """Area under the ROC curve: share of (real, fake) pairs in which the real logit is larger, ties counted
    half; logits [B] or [B, K]."""
    differences = rows(real).mean(1)[:, None] - rows(fake).mean(1)
    return (differences > 0).float().mean() + (differences == 0).float().mean() / 2
