"""Measures the metrics that `litgan.diagnosis.checks` defines and checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.optim import Optimizer

from litgan import gradient_flow
from litgan.callbacks.realism import Realism
from litgan.condition import has_pairs
from litgan.data.stock import data_of, eval_conditions
from litgan.files import warn
from litgan.gan import GAN, Batch
from litgan.memory import AutoBatchSize
from litgan.noise import Noise
from litgan.sampling import eval_mode

MAX_CPU_EXTRACTOR_SIZE = 64  # pixels a side; on a CPU, extractors of larger images take too long


class DiagnosticMetrics:
    """Computes the metrics on fixed latents and fixed reals, with both networks in evaluation mode.

    Args:
        count: of fakes, and of reals of each split (all, if a split has fewer).
        seed: of the latents.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.snapshots: list[list[Tensor]] = []  # generator weights before the last two updates
        self.reals: dict[str, Batch] = {}  # by split
        self.real_distance: Tensor | None = None  # mean distance between reals

    def snapshot_weights(self, gan: GAN) -> None:
        """Stores the weights before one of the last two updates; `step_ratio` and `step_cosine` need them."""
        self.snapshots = [*self.snapshots[-1:], gradient_flow.clone_params(gan.generator)]

    def clear_snapshots(self) -> None:
        self.snapshots = []

    @torch.no_grad()
    def __call__(self, trainer: Trainer, gan: GAN, size: int) -> dict[str, float]:
        """Computes all metrics in batches of `size`, or smaller ones where the memory is too small for these,
        and copies them to the CPU at once.
        """
        in_parts = AutoBatchSize(size)
        real, held_out = (self.real_logits(trainer, gan, split, in_parts) for split in ("train", "test"))
        paired_reals = real[torch.arange(self.count) % len(real)]  # one for each fake; few reals repeat
        samples, fake, feedback = self.fakes(gan, data_of(trainer), paired_reals, in_parts)
        loss, logits = gan.loss, {"real": paired_reals, "fake": fake}
        metrics = {
            "g_loss_gradient": relative_loss_gradient(loss.generator, **logits, of=["fake"]),
            "d_loss_gradient": relative_loss_gradient(loss.discriminator, **logits, of=["real", "fake"]),
            "gradient_over_eps": grad_over_eps(gan.trainer.optimizers[0]),
            "feedback_norm": feedback,
            "auc": gradient_flow.auc(real=real, fake=fake),
            "diversity": self.diversity(trainer, gan, samples),
            "step_ratio": gradient_flow.update_ratio(self.snapshots[-1], gan.generator),
            "step_cosine": self.step_cosine(gan),
            **weight_norms(gan),
            "logits_rms": torch.cat([real, fake]).square().mean().sqrt(),
            **self.pair_error(trainer, gan, samples),
            **(overfitting(train=real, held_out=held_out, fake=fake) if len(held_out) else {}),
        }
        return dict(
            zip(metrics, torch.stack([metric.float() for metric in metrics.values()]).tolist(), strict=True)
        )

    def real_logits(self, trainer: Trainer, gan: GAN, split: str, in_parts: AutoBatchSize) -> Tensor:
        """Logits [N, K] of a split's fixed reals; N is 0 if there is no such split."""
        samples, condition = self.fixed_reals(trainer, gan, split)
        if not len(samples):
            return torch.empty(0, 1)

        def part(first: int, size: int) -> Tensor:
            rows = slice(first, first + size)
            return gan.discriminator(samples[rows], None if condition is None else condition[rows])

        with eval_mode(gan.discriminator):
            return in_parts(part, len(samples)).float()

    def fixed_reals(self, trainer: Trainer, gan: GAN, split: str) -> Batch:
        """The first `count` evaluation samples of a split, cached on the device."""
        if split not in self.reals:
            data, samples, condition = data_of(trainer), torch.empty(0), None
            if split in data.splits:
                try:
                    batches = list(data.real_batches(min(self.count, data.size(split)), split=split))
                    samples = torch.cat([batch for batch, _ in batches]).to(gan.device)
                    if gan.condition:
                        condition = torch.cat([part for _, part in batches]).to(gan.device)
                except (OSError, ValueError, RuntimeError) as error:
                    if split == "train":
                        raise
                    warn(f"The split {split!r} cannot be read ({error}): MEMORIZING is not checked.")
            self.reals[split] = samples, condition
        return self.reals[split]

    def fakes(
        self, gan: GAN, data: Any, paired_reals: Tensor, in_parts: AutoBatchSize
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Samples of the fixed latents, their logits [N, K] and the mean norm of their feedback dL/dx.

        `paired_reals` are the logits [N, K] that relativistic losses compare with.
        """
        latents = Noise(self.seed, 0, 0, self.count, "sample", gan.device).normal(gan.generator.latent_dim)  # type: ignore[arg-type]
        condition = eval_conditions(gan, data, self.count)

        def part(first: int, size: int) -> gradient_flow.BackwardTrace:
            rows = slice(first, first + size)
            return gradient_flow.trace_gradients(
                gan.generator, gan.discriminator, gan.loss, latents[rows],
                None if condition is None else condition[rows], real_logits=paired_reals[rows],
            )  # fmt: skip

        trace = gradient_flow.BackwardTrace.join(in_parts.parts(part, self.count))
        return trace.samples, trace.logits.float(), gradient_flow.mean_norm(trace.feedback)

    def pair_error(self, trainer: Trainer, gan: GAN, fake: Tensor) -> dict[str, Tensor]:
        """The metric of this name, of fakes for the conditions of the fixed reals."""
        if not has_pairs(gan.condition, data_of(trainer)):
            return {}
        real, _ = self.fixed_reals(trainer, gan, "train")
        return {"pair_error": (fake[: len(real)].float() - real).square().mean().sqrt()}

    def diversity(self, trainer: Trainer, gan: GAN, fake: Tensor) -> Tensor:
        """Mean distance between fakes over that between reals, in feature space if that is cheap."""
        features = self.features(trainer, gan)
        if self.real_distance is None:
            self.real_distance = mean_distance(features(self.fixed_reals(trainer, gan, "train")[0]))
        return mean_distance(features(fake)) / self.real_distance.clamp_min(1e-30)

    def features(self, trainer: Trainer, gan: GAN) -> Any:
        """A function of samples to vectors [N, D]: the realism callback's extractor, or flattening."""
        realism = next((one for one in trainer.callbacks if isinstance(one, Realism) and one.every), None)
        if realism is not None:
            extractor = realism.network(gan)
            extractor.setup(data_of(trainer))
            if gan.device.type != "cpu" or extractor.size <= MAX_CPU_EXTRACTOR_SIZE:
                return lambda samples: AutoBatchSize()(
                    lambda first, size: extractor(samples[first : first + size]), len(samples)
                )
        return lambda samples: samples.float().flatten(1)

    def step_cosine(self, gan: GAN) -> Tensor:
        """Cosine between the generator's last two updates; 0 if only one has been recorded."""
        if len(self.snapshots) < 2:
            return torch.zeros((), device=gan.device)
        earlier = torch._foreach_sub(self.snapshots[1], self.snapshots[0])
        return update_cosine(earlier, gradient_flow.param_update(self.snapshots[1], gan.generator))


def relative_loss_gradient(
    loss: Callable[..., Tensor], *, real: Tensor, fake: Tensor, of: Sequence[str]
) -> Tensor:
    """Mean |dL/dlogit| over logits [B, K], divided by its value at logits of 0.

    Args:
        loss: `AdversarialLoss.generator` or `.discriminator`.
        real: logits of real samples.
        fake: logits of fakes.
        of: "real", "fake" or both: the logits to differentiate with respect to.
    """

    def mean_gradient(**logits: Tensor) -> Tensor:
        with torch.enable_grad():
            leaves = {name: value.detach().float().requires_grad_() for name, value in logits.items()}
            gradients = torch.autograd.grad(loss(**leaves).sum(), [leaves[name] for name in of])
        return torch.cat([gradient.flatten() for gradient in gradients]).abs().mean()

    at_zero = mean_gradient(real=torch.zeros_like(real), fake=torch.zeros_like(fake))
    return mean_gradient(real=real, fake=fake) / at_zero.clamp_min(1e-30)


def grad_over_eps(optimizer: Optimizer) -> Tensor:
    """Root mean square of |g| / eps over all parameters; a missing gradient counts as 0."""
    squares, count = [], 0
    for group in optimizer.param_groups:
        for weight in group["params"]:
            count += weight.numel()
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
            squares.append((gradient.float().norm() / group.get("eps", gradient_flow.ADAMS_EPS)).square())
    return (torch.stack(squares).sum() / count).sqrt()


def update_cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Cosine between two updates of one network; 0 if one is zero."""
    product = torch.stack([(a * b).float().sum() for a, b in zip(one, other, strict=True)]).sum()
    return product / (gradient_flow.total_norm(one) * gradient_flow.total_norm(other)).clamp_min(1e-30)


def weight_norms(gan: GAN) -> dict[str, Tensor]:
    """The norm of each network's weights."""
    return {
        f"weight_norm_{name}": gradient_flow.total_norm(gradient_flow.trainable_params(network))
        for name, network in (("generator", gan.generator), ("discriminator", gan.discriminator))
    }


def overfitting(*, train: Tensor, held_out: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """How much better a discriminator scores training samples than held-out ones, from logits [N, K].

    `overfitting` is r_v of Karras et al. 2020 (ADA), eq. 1: 0 if held-out reals score like training
    reals, 1 if they score like fakes. `overfitting_sigmas` is its numerator in standard errors.
    """
    train, held_out, fake = train.float().mean(1), held_out.float().mean(1), fake.float().mean(1)
    gap_to_held_out = train.mean() - held_out.mean()
    error = sum(side.var(correction=0) / len(side) for side in (train, held_out)) ** 0.5
    gap = (train.mean() - fake.mean()).clamp_min(1e-3 * gap_to_held_out.abs() + 1e-12)
    return {
        "overfitting": gap_to_held_out / gap,
        "overfitting_sigmas": gap_to_held_out / error.clamp_min(1e-12),
    }


def mean_distance(features: Tensor) -> Tensor:
    """Mean Euclidean distance between all pairs of N vectors [N, D]; 0 for a single vector."""
    count = len(features)  # torch.pdist has no Metal kernel
    pairs = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    return pairs.sum() / max(1, count * (count - 1))
