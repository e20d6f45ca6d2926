"""The way back: what becomes of the feedback on its way through both networks, block by block.

Pure functions of two networks, latents and a loss. Nothing here changes a network: gradients are asked for
and returned, not left in the parameters, and running statistics stand still in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan.losses import AdversarialLoss
from litgan.noise import seed_device

LISTS = (nn.ModuleList, nn.Sequential)
QUANTILES = (0.1, 0.5, 0.9)  # of the margins that are told
ADAMS_EPS = 1e-8  # the default of torch's Adam and of the paper's algorithm 1


def layers(network: nn.Module) -> dict[str, nn.Module]:
    """The parts of a network that are told apart, by their dotted names.

    The network is opened, and so is whatever keeps its layers in lists (`ModuleList`, `Sequential`), with
    these lists; an entry of a list stays whole. What has nothing to learn (activations, filters, a frozen
    backbone) is left out.
    """
    return dict(_parts(network, "", opened=isinstance(network, LISTS)))


def _parts(module: nn.Module, prefix: str, opened: bool) -> Iterator[tuple[str, nn.Module]]:
    for name, part in module.named_children():
        if not any(weight.requires_grad for weight in part.parameters()):
            continue
        listed = isinstance(part, LISTS)
        if not opened and (listed or any(isinstance(child, LISTS) for child in part.children())):
            yield from _parts(part, f"{prefix}{name}.", listed)
        else:
            yield prefix + name, part


@dataclass
class BackwardTrace:
    """One pass there and back: samples, their logits, and the gradients L_i' of each sample's own loss."""

    samples: Tensor  # [B, *sample_shape]
    logits: Tensor  # [B, K]
    feedback: Tensor  # dL_i/dx_i, [B, *sample_shape]
    discriminator: dict[str, Tensor] = field(default_factory=dict)  # block, in the order of the pass:
    generator: dict[str, Tensor] = field(default_factory=dict)  # mean over samples of ||dL_i/dh_i||, where
    # h_i is all that the block gave, in however many calls

    def gradient_norms(self) -> dict[str, Tensor]:
        """The norms in the order in which the feedback passes: from the discriminator's head to latents."""
        judged = {f"discriminator/{name}": norm for name, norm in reversed(self.discriminator.items())}
        made = {f"generator/{name}": norm for name, norm in reversed(self.generator.items())}
        return {**judged, "samples": mean_norm(self.feedback), **made}


def trace_gradients(
    generator: nn.Module,
    discriminator: nn.Module,
    loss: AdversarialLoss,
    latents: Tensor,
    labels: Tensor | None = None,
    *,
    real_logits: Tensor | None = None,
) -> BackwardTrace:
    """Sends latents through both networks, in evaluation mode, and the generator's loss back.

    Args:
        generator: latents to samples.
        discriminator: samples to logits [B, K].
        loss: of which the generator's side is differentiated.
        latents: [B, latent_dim]; whatever the networks draw besides depends on these alone.
        labels: classes [B], or None.
        real_logits: [B, K] that a loss of pairs compares with; None stands the other fakes' logits in for
            them.
    """
    latents = latents.detach().requires_grad_()  # so that a frozen generator is seen through, too
    seed_device(latents.device, "telescope")
    with eval_mode(generator, discriminator), torch.enable_grad():
        with hook_outputs(generator) as made:
            samples = generator(latents, labels)
        with hook_outputs(discriminator) as judged:
            logits = discriminator(samples, labels)
        stand_in = logits.detach().flip(0) if real_logits is None else real_logits.detach()
        total = loss.generator(real=stand_in if loss.relativistic else None, fake=logits).sum()
        calls = [call for found in (judged, made) for calls in found.values() for call in calls]
        points = [samples, latents, *calls]
        gradients = torch.autograd.grad(total, points, allow_unused=True, materialize_grads=True)
    feedback, of_latents, *others = gradients
    rest = iter(others)

    def norms(found: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        parts = {name: [next(rest).reshape(len(call), -1) for call in calls] for name, calls in found.items()}
        return {name: mean_norm(torch.cat(gradients, dim=1)) for name, gradients in parts.items()}

    of_discriminator = norms(judged)
    of_generator = {"latents": mean_norm(of_latents), **norms(made)}
    return BackwardTrace(samples.detach(), logits.detach(), feedback, of_discriminator, of_generator)


@contextmanager
def hook_outputs(network: nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """What each block gives in the passes in here, call by call; blocks in the order of the pass.

    Weights are frozen meanwhile, so that a gradient leads to what depends on the samples (or latents) alone,
    not to the embedding of a class that is added on the way.
    """
    found: dict[str, list[Tensor]] = {}
    learning = [weight for weight in network.parameters() if weight.requires_grad]

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            found.setdefault(name, []).append(output)

    handles = [part.register_forward_hook(partial(keep, name)) for name, part in layers(network).items()]
    try:
        for weight in learning:
            weight.requires_grad = False
        yield found
    finally:
        for weight in learning:
            weight.requires_grad = True
        for handle in handles:
            handle.remove()


@contextmanager
def eval_mode(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode in here, and afterwards each network's own mode, part by part."""
    modes = [(part, part.training) for network in networks for part in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def mean_norm(gradients: Tensor) -> Tensor:
    """Mean over samples [B, ...] of each one's Euclidean norm."""
    return gradients.float().flatten(1).norm(dim=1).mean() if gradients.ndim > 1 else gradients.abs().mean()


def mean_cosine(one: Tensor, other: Tensor) -> Tensor:
    """Mean over samples [B, ...] of the cosine between two gradients; 0 where one is nothing."""
    return torch.cosine_similarity(one.float().flatten(1), other.float().flatten(1), dim=1, eps=1e-30).mean()


def trainable_params(network: nn.Module) -> list[Tensor]:
    """The learning weights themselves, without a graph."""
    return [weight.detach() for weight in network.parameters() if weight.requires_grad]


def clone_params(network: nn.Module) -> list[Tensor]:
    """The learning weights as they are now."""
    return [weight.clone() for weight in trainable_params(network)]


def param_update(before: Sequence[Tensor], network: nn.Module) -> list[Tensor]:
    """How far each learning weight has come since `clone_params`."""
    return list(torch._foreach_sub(trainable_params(network), list(before)))


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all of them together."""
    return torch.nn.utils.get_total_norm([tensor.detach() for tensor in tensors])


def update_ratio(before: Sequence[Tensor], network: nn.Module) -> Tensor:
    """||w - w_before|| / ||w_before|| over all learning weights: how much of itself a step changes."""
    return total_norm(param_update(before, network)) / total_norm(before).clamp_min(1e-30)


def update_cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Cosine between two steps of one network; 0 where it stood still."""
    product = torch.stack([(a * b).float().sum() for a, b in zip(one, other, strict=True)]).sum()
    return product / (total_norm(one) * total_norm(other)).clamp_min(1e-30)


def grad_below_eps(optimizer: Optimizer) -> Tensor:
    """Share of parameters (elements) whose last gradient is smaller than the optimizer's eps, or missing.

    A step of Adam is lr * m / (sqrt(v) + eps): a gradient of size eps halves it, a smaller one leaves next to
    nothing. Optimizers without an eps are compared with Adam's default.
    """
    small = [
        torch.tensor(float(weight.numel()), device=weight.device)
        if weight.grad is None
        else (weight.grad.abs() < eps).sum().float()
        for weight, eps in params_with_eps(optimizer)
    ]
    return torch.stack(small).sum() / max(count_params(optimizer), 1)


def grad_over_eps(optimizer: Optimizer) -> Tensor:
    """Root mean square of |g| / eps over all parameters; a missing gradient counts as 0."""
    square = [
        (weight.grad.float().norm() / eps).square()
        for weight, eps in params_with_eps(optimizer)
        if weight.grad is not None
    ]
    return (torch.stack(square or [torch.zeros(())]).sum() / max(count_params(optimizer), 1)).sqrt()


def params_with_eps(optimizer: Optimizer) -> Iterator[tuple[Tensor, float]]:
    for group in optimizer.param_groups:
        for weight in group["params"]:
            yield weight, group.get("eps", ADAMS_EPS)


def count_params(optimizer: Optimizer) -> int:
    return sum(weight.numel() for weight, _ in params_with_eps(optimizer))


def logit_statistics(*, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """How surely the discriminator tells real from fake, of logits [B, K], B > 0.

    `sign_real` and `sign_fake` are mean signs (+1 and -1 where it is always right), `accuracy` the share of
    right ones. `auc` is the share of all pairs in which the real sample has the larger logit (the area
    under the ROC curve): unlike the signs it needs no zero, which the losses of critics leave open.
    `margin_10` and its kin are quantiles of real minus fake, of the samples one by one.
    """
    real, fake = real.float().mean(1), fake.float().mean(1)
    told = {
        "sign_real": real.sign().mean(),
        "sign_fake": fake.sign().mean(),
        "accuracy": ((real > 0).float().mean() + (fake < 0).float().mean()) / 2,
        "auc": auc(real=real, fake=fake),
    }
    count = min(len(real), len(fake))
    margins = torch.quantile(real[:count] - fake[:count], torch.tensor(QUANTILES, device=real.device))
    return told | {
        f"margin_{100 * q:.0f}": margin for q, margin in zip(QUANTILES, margins.unbind(), strict=True)
    }


def auc(*, real: Tensor, fake: Tensor) -> Tensor:
    """Share of pairs whose real logit is the larger, draws counted half; logits [B] or [B, K]."""
    gaps = real.float().reshape(len(real), -1).mean(1)[:, None] - fake.float().reshape(len(fake), -1).mean(1)
    return (gaps > 0).float().mean() + (gaps == 0).float().mean() / 2


def relative_loss_gradient(
    side: Callable[..., Tensor], *, real: Tensor, fake: Tensor, of: Sequence[str]
) -> Tensor:
    """How much derivative a loss passes at these logits, next to what it passes where all logits are 0.

    Args:
        side: `loss.generator` or `loss.discriminator`.
        real: logits [B, K] of real samples.
        fake: of fakes.
        of: "real", "fake" or both: the logits to differentiate for.

    Returns:
        The mean of |dL/dlogit| over these logits, divided by its value at 0.
    """

    def passed(**logits: Tensor) -> Tensor:
        with torch.enable_grad():
            leaves = {name: value.detach().float().requires_grad_() for name, value in logits.items()}
            wanted = [leaves[name] for name in of]
            gradients = torch.autograd.grad(side(**leaves).sum(), wanted)
        return torch.cat([gradient.flatten() for gradient in gradients]).abs().mean()

    at_zero = passed(real=torch.zeros_like(real), fake=torch.zeros_like(fake))
    return passed(real=real, fake=fake) / at_zero.clamp_min(1e-30)
