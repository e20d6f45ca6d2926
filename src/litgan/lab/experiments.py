"""The experiments of the lab; each trains GANs and returns rows of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from litgan.gan import GAN
from litgan.lab.dynamics import Update, dirac_gan, rotation_share
from litgan.lab.setups import DIGITS, Setup
from litgan.lab.transforms import (
    BatchMean,
    Delayed,
    GradientTransform,
    Identity,
    LastBlocks,
    Noised,
    Shuffled,
    ShuffledResidual,
    Sign,
    Zero,
)
from litgan.losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from litgan.noise import Noise
from litgan.penalties import DRAGAN, R1, R2, WGANGP, LeCam, Penalty

Row = dict[str, Any]
Log = Callable[[str], None]

LEVELS = (1.0, 4.0, 16.0)  # of noise, times the feedback
DELAYS = (1, 2, 4, 8)  # iterations; longer ones fail too, in no order
BLOCKS = (1, 2)  # last blocks of the generator
LOSSES: tuple[AdversarialLoss, ...] = (
    NonSaturating(), Minimax(), Hinge(), LeastSquares(), Wasserstein(), Relativistic()
)  # fmt: skip
DIRAC_LR = 0.2  # of the Dirac-GAN's updates
UPDATES: tuple[Update, ...] = ("simultaneous", "alternating")


@dataclass(frozen=True)
class Plan:
    """The size of the experiments.

    Args:
        setups: with the number of seeds of each.
        levels: of noise, relative to the feedback.
        delays: in iterations.
        blocks: numbers of last blocks that are trained.
        iterations: of a run; None for the setup's default.
    """

    setups: tuple[tuple[Setup, int], ...]
    levels: tuple[float, ...] = LEVELS
    delays: tuple[int, ...] = DELAYS
    blocks: tuple[int, ...] = BLOCKS
    iterations: int | None = None


def all_transforms(plan: Plan) -> list[tuple[str, float, Callable[[], GradientTransform]]]:
    """(name, amount, factory) of each transform."""
    return [
        ("identity", 0.0, Identity), ("zero", 0.0, Zero), ("sign", 0.0, Sign), ("shuffled", 0.0, Shuffled),
        ("batch mean", 0.0, BatchMean), ("shuffled residual", 0.0, ShuffledResidual),
        *(("noise", level, partial(Noised, level)) for level in plan.levels),
        *(("delay", float(late), partial(Delayed, late)) for late in plan.delays),
        *(("last blocks", float(count), partial(LastBlocks, count)) for count in plan.blocks),
    ]  # fmt: skip


def feedback(plan: Plan, log: Log) -> list[Row]:
    """Trains every setup with every transform of the feedback."""
    rows: list[Row] = []
    for setup, seeds in plan.setups:
        for name, amount, make in all_transforms(plan):
            for seed in range(seeds):
                result = setup.train(make(), seed=seed, iterations=plan.iterations)
                rows.append(
                    {"setup": setup.name, "transform": name, "amount": amount, "seed": seed,
                     "start": result.start, "end": result.end}
                )  # fmt: skip
            start, end = (sum(row[key] for row in rows[-seeds:]) / seeds for key in ("start", "end"))
            label = f"{name} {amount:g}" if amount else name
            log(f"{setup.name}, feedback {label}: distance {start:.3g} -> {end:.3g}")
    return rows


def loss_gradients(
    setup: Setup = DIGITS, d_steps: Sequence[int] = (0, 5, 10, 25, 50, 100, 200, 300)
) -> list[Row]:
    """Measures the feedback of all losses through one discriminator while that grows confident.

    The discriminator is trained against a frozen generator. After each of `d_steps` iterations `feedback` is
    the mean norm of dL/dx over one batch of fakes, for every loss. `loss_derivative` is this over the mean
    norm of dD/dx, the feedback of the Wasserstein loss.
    """
    rows: list[Row] = []

    def measure(gan: GAN, done: int) -> None:
        noise = Noise(0, 0, 0, 256, "lab", gan.device)
        real = next(iter(gan.trainer.datamodule.real_batches(256, batch_size=256)))[0]
        with torch.enable_grad():
            latents = noise.normal(gan.generator.latent_dim)  # type: ignore[arg-type]
            fake = gan.generator(latents).detach().requires_grad_()
            logits, real_logits = gan.discriminator(fake), gan.discriminator(real).detach()
            (slope,) = torch.autograd.grad(logits.sum(), fake, retain_graph=True)
            slope_norm = slope.flatten(1).norm(dim=1).mean().item()
            for loss in LOSSES:
                value = loss.generator(real=real_logits if loss.relativistic else None, fake=logits)
                (gradient,) = torch.autograd.grad(value.sum(), fake, retain_graph=True)
                size = gradient.flatten(1).norm(dim=1).mean().item()
                rows.append(
                    {"loss": type(loss).__name__, "d_steps": done, "feedback": size,
                     "loss_derivative": size / slope_norm,
                     "logit_gap": (real_logits.mean() - logits.mean()).item()}
                )  # fmt: skip

    class Measure(Callback):
        def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
            measure(gan, 0)

        def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
            if gan.discriminator_updates in d_steps:
                measure(gan, gan.discriminator_updates)

    setup.train(Zero(), iterations=max(d_steps), callbacks=[Measure()], penalties=[])
    return rows


class WeightTrajectory(Callback):
    """Records the generator's weights after the last iterations, as vectors."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.points: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, gan: GAN, *_: object) -> None:
        if trainer.max_steps - trainer.global_step <= self.last:
            weights = [weight.detach().flatten() for weight in gan.generator.parameters()]
            self.points.append(torch.cat(weights).clone())


PENALTIES: dict[str, tuple[AdversarialLoss, list[Penalty]]] = {
    "none": (NonSaturating(), []),
    "R1": (NonSaturating(), [R1(0.01, interval=2)]),
    "R1 + R2": (NonSaturating(), [R1(0.01, interval=2), R2(0.01, interval=2)]),
    "WGAN-GP": (Wasserstein(), [WGANGP(0.1)]),
    "DRAGAN": (NonSaturating(), [DRAGAN(0.1)]),
    "LeCam": (NonSaturating(), [LeCam(0.1)]),
}


def penalties(plan: Plan, log: Log) -> list[Row]:
    """Trains the first setup with each penalty; measures the distance and the rotation of the updates."""
    rows: list[Row] = []
    setup, seeds = plan.setups[0]
    for name, (loss, chosen) in PENALTIES.items():
        for seed in range(seeds):
            trajectory = WeightTrajectory(100)
            options: dict[str, Any] = {"loss": loss, "penalties": chosen, "callbacks": [trajectory]}
            result = setup.train(seed=seed, iterations=plan.iterations, **options)
            share = rotation_share(torch.stack(trajectory.points).diff(dim=0)).mean().item()
            rows.append({"penalty": name, "seed": seed, "end": result.end, "rotation": share})
        log(f"{setup.name}, penalty {name}: distance {sum(row['end'] for row in rows[-seeds:]) / seeds:.3g}")
    return rows


def dirac(gammas: Sequence[float] = (0.0, 0.02, 0.3, 1.0)) -> list[Row]:
    """Computes eigenvalues and trajectories of the Dirac-GAN.

    A trajectory has 500 updates from (1, 0). `amplitude_ratio` is the largest distance from the equilibrium
    in the last 100 updates over that in the first 100.
    """
    rows: list[Row] = []
    origin, start = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)
    for gamma in gammas:
        game = dirac_gan(Minimax(), gamma)
        for kind in UPDATES:
            values = game.eigenvalues(origin)
            path = game.trajectory(start, DIRAC_LR, 500, kind)
            rows.append(
                {"gamma": gamma, "update": kind, "real": values.real.max().item(),
                 "imaginary": values.imag.abs().max().item(),
                 "multiplier": game.multipliers(origin, DIRAC_LR, kind).abs().max().item(),
                 "amplitude_ratio": (path[-100:].norm(dim=1).max() / path[:100].norm(dim=1).max()).item(),
                 "path": path.tolist()}
            )  # fmt: skip
    return rows
