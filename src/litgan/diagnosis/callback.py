"""Diagnosis: named verdicts about the game while it is played, and what to do about them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from lightning.pytorch import Callback, Trainer

from litgan import checkpoints
from litgan.callbacks.gradients import will_pass
from litgan.callbacks.throughput import untimed
from litgan.diagnosis.checks import CHECKS, Monitor, Result, Scaling, rollback_scaling
from litgan.diagnosis.metrics import DiagnosticMetrics, weight_norms
from litgan.files import dispensable, set_aside, warn, whole
from litgan.gan import GAN, Batch
from litgan.loggers import WandbLogger
from litgan.schedules import Schedule, value_at
from litgan.telescope import total_norm

Policy: TypeAlias = Literal["warn", "stop", "rollback"]


class Diagnosis(Callback):
    """Looks at the game's vital signs at a cadence, and raises verdicts: SATURATED, VANISHED, OVERPOWERED,
    COLLAPSED, OSCILLATING, DIVERGED, MEMORIZING (`litgan.diagnosis.checks` defines each).

    A verdict has to hold at `patience` looks in a row; it is raised once, until it has cleared for as long.
    It is logged as `health/<verdict>` (0 or 1, with the signs as `vitals/<name>`), added to `health.jsonl` in
    the run's folder, said on stderr, sent as a W&B alert, and summed up at the end of the run. Rank zero
    looks, and all ranks judge what it saw; between looks nothing is computed.

    Under the policy "rollback" the state at the start, and later at looks before which nothing has been found
    for `patience` looks, is kept as `checkpoints/healthy.ckpt`. On a verdict weights, averages and optimizers
    go back to it. From then on the network that had moved farther from that state, relative to its weights,
    has its learning rate divided by how many times farther than the other it had moved, by 10 to 100, and
    penalties weigh twice as much; a resumed run keeps the change. The
    clock does not go back: the batches and latents that follow are new ones, since the same ones might lead
    to the same place, and the curves go on. A number that is not finite ends the run under any policy.

    Args:
        every: images between two looks, 0 for never.
        policy: on a verdict "warn"; "stop", which ends the run in order; or "rollback".
        patience: looks in a row at which a verdict must hold. DIVERGED needs but one.
        tries: roll-backs in a run; after the last one verdicts are warnings.
        count: samples of each kind in a look.
        seed: of their fixed latents.

    Raises:
        ValueError: for another policy, a patience below 1, or a count below 2.
    """

    def __init__(
        self,
        every: int = 20_000,
        policy: Policy = "warn",
        patience: int = 3,
        tries: int = 3,
        count: int = 64,
        seed: int = 0,
    ) -> None:
        if policy not in get_args(Policy):
            raise ValueError(f"health.policy is {policy!r}: give {', '.join(get_args(Policy))}.")
        for name, number, least in (("patience", patience, "1 look"), ("count", count, "2 samples")):
            if number < int(least[0]):
                raise ValueError(f"health.{name} is {number}: give at least {least}.")
        self.every, self.policy, self.tries = every, policy, tries
        self.metrics, self.monitor = DiagnosticMetrics(count, seed), Monitor(patience)
        self.measurements = 0
        self.history: list[tuple[int, str]] = []  # images_seen and name of each verdict raised so far
        self.scaling = Scaling()  # by which roll-backs have changed the recipe
        self.rollbacks = 0
        self.recipe_lrs: list[list[float]] = []  # the recipe's learning rates

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.recipe_lrs = [list(rates) for rates in gan.initial_rates]
        self.apply_scaling(gan)
        if not self.monitor.baseline:  # of a run that begins here
            self.monitor.baseline = {name: norm.item() for name, norm in weight_norms(gan).items()}
        if self.every and trainer.is_global_zero:
            self.prepare_file(self.events_path(trainer), gan.images_seen)
        kept = gan.images_seen > 0 and trainer.strategy.broadcast(self.healthy_checkpoint(trainer).exists())
        if self.every and self.policy == "rollback" and not kept:  # what lies there is of another run
            trainer.save_checkpoint(self.healthy_checkpoint(trainer), weights_only=False)

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, batch: Batch, batch_idx: int) -> None:
        if not trainer.is_global_zero or (gan.discriminator_updates + 1) % gan.discriminator_steps:
            return
        if any(will_pass(gan, batch, self.every, ahead) for ahead in (0, 1)):
            self.metrics.snapshot_weights(gan)
        else:
            self.metrics.clear_snapshots()

    def on_train_batch_end(
        self, trainer: Trainer, gan: GAN, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not gan.is_due(self.every):
            return
        with untimed(gan):
            measured = self.metrics(trainer, gan, len(batch[0])) if trainer.is_global_zero else {}
            metrics = trainer.strategy.broadcast(measured)
            evaluation = self.monitor(metrics)
            self.measurements += 1
            states = {f"diagnosis/{name.lower()}": float(name in self.monitor.active) for name in CHECKS}
            values = {f"diagnostics/{name}": value for name, value in metrics.items()}
            gan.log_scalars({**states, **values, "diagnosis/rollbacks": float(self.rollbacks)})
            for name in evaluation.activated:
                self.report_state(trainer, gan, name, evaluation.results[name])
            if evaluation.activated and self.policy == "stop":
                trainer.should_stop = True
            elif evaluation.activated and self.policy == "rollback" and self.rollbacks < self.tries:
                self.roll_back(trainer, gan, evaluation.activated)
            elif self.monitor.healthy and self.policy == "rollback":
                trainer.save_checkpoint(self.healthy_checkpoint(trainer), weights_only=False)

    def on_exception(self, trainer: Trainer, gan: GAN, exception: BaseException) -> None:
        if isinstance(exception, FloatingPointError) and self.every:  # between two looks
            self.report_state(trainer, gan, "DIVERGED", Result(math.nan, math.nan, True))
        self.on_train_end(trainer, gan)

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        if self.measurements or self.history:
            warn(self.summary())

    def summary(self) -> str:
        """One sentence on the whole run."""
        told = ", ".join(f"{name} after {at:,} images" for at, name in self.history)
        back = f"; rolled back {self.rollbacks} times" if self.rollbacks else ""
        return f"health: {told or 'no verdict'} in {self.measurements} looks{back}."

    def report_state(self, trainer: Trainer, gan: GAN, name: str, result: Result) -> None:
        """Tells the world of a verdict."""
        check = CHECKS[name]
        self.history.append((gan.images_seen, name))
        self.report(trainer, gan, name, check.meaning, check.remedy, result.value, result.threshold)

    def report(
        self,
        trainer: Trainer,
        gan: GAN,
        state: str,
        meaning: str,
        remedy: str,
        value: float,
        threshold: float,
    ) -> None:
        """One line in health.jsonl, one on stderr, one alert."""
        if not trainer.is_global_zero:
            return
        event = {"images_seen": gan.images_seen, "verdict": state, "meaning": meaning, "remedy": remedy}
        numbers = {"value": value, "threshold": threshold}
        event |= {
            key: number if math.isfinite(number) else None for key, number in numbers.items()
        }  # JSON has no NaN
        with dispensable("The verdict"):
            self.events_path(trainer).parent.mkdir(
                parents=True, exist_ok=True
            )  # somebody may have removed it
            with self.events_path(trainer).open("a") as file:
                file.write(json.dumps(event) + "\n")
        warn(f"{state} after {gan.images_seen:,} images: {meaning} {remedy}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.alert(
                    title=state, text=f"After {gan.images_seen:,} images. {meaning} {remedy}"
                )

    def roll_back(self, trainer: Trainer, gan: GAN, names: list[str]) -> None:
        """Goes on from the last healthy state, more slowly; alike on all ranks.

        Raises:
            ValueError: if it cannot be read, or is of another architecture; nothing has changed then.
        """
        saved = checkpoints.read(self.healthy_checkpoint(trainer))
        checkpoints.check_architecture(saved, gan)
        drift = {
            f"{side}_drift": weight_drift(saved["state_dict"], gan, side)
            for side in ("generator", "discriminator")
        }
        gan.load_state_dict(saved["state_dict"])
        for optimizer, state in zip(trainer.optimizers, saved["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)
        plugin = trainer.precision_plugin
        plugin.load_state_dict(saved.get(type(plugin).__qualname__, {}))
        self.scaling *= rollback_scaling(**drift)
        self.rollbacks += 1
        self.apply_scaling(gan)
        self.monitor.reset()
        self.metrics.clear_snapshots()
        at = saved["litgan"]["images_seen"]
        meaning = f"Weights and optimizers are those of {at:,} images again, after {' and '.join(names)}."
        remedy = f"Changed for the rest of the run, next to the recipe: {self.scaling}."
        self.report(trainer, gan, "ROLLED BACK", meaning, remedy, float(at), math.nan)

    def apply_scaling(self, gan: GAN) -> None:
        """Applies `factors` to the recipe's learning rates and penalty weights."""
        for index, (rates, factor) in enumerate(zip(self.recipe_lrs[:2], self.scaling[:2], strict=True)):
            gan.initial_rates[index] = [rate * factor for rate in rates]
            for group, rate in zip(
                gan.trainer.optimizers[index].param_groups, gan.initial_rates[index], strict=True
            ):
                group["initial_lr"] = rate
        for penalty in gan.penalties:
            original = penalty.weight.weight if isinstance(penalty.weight, ScaledSchedule) else penalty.weight
            if self.scaling.penalty != 1:
                penalty.weight = ScaledSchedule(original, self.scaling.penalty)

    def prepare_file(self, path: Path, images_seen: int) -> None:
        """Makes health.jsonl, or drops what a lost part of the run wrote; a damaged one is set aside."""
        with dispensable("The file of verdicts"):
            lines = path.read_bytes().splitlines() if path.is_file() else []
            clocks = [images_seen_of(line) for line in lines]
            if None in clocks or (os.path.lexists(path) and not path.is_file()):
                set_aside(path)
            kept = [
                line for line, at in zip(lines, clocks, strict=True) if at is not None and at <= images_seen
            ]
            with whole(path) as partial:
                partial.write_bytes(b"".join(line + b"\n" for line in kept))

    def events_path(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "health.jsonl"

    def healthy_checkpoint(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints" / "healthy.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {
            "monitor": self.monitor.state_dict(), "measurements": self.measurements, "history": self.history,
            "scaling": list(self.scaling), "rollbacks": self.rollbacks,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.monitor.load_state_dict(state_dict["monitor"])
        self.measurements, self.rollbacks = state_dict["measurements"], state_dict["rollbacks"]
        self.history = [(at, name) for at, name in state_dict["history"]]
        self.scaling = Scaling(*state_dict["scaling"])


def weight_drift(saved: dict[str, Any], gan: GAN, side: str) -> float:
    """How far a network's weights are from the saved ones, over the norm of these; inf where not finite."""
    now = dict(getattr(gan, side).named_parameters())
    before = [saved[f"{side}.{name}"].to(weight.device) for name, weight in now.items()]
    drift = total_norm(torch._foreach_sub(list(now.values()), before)) / total_norm(before).clamp_min(1e-30)
    return drift.item() if drift.isfinite() else math.inf


class ScaledSchedule(Schedule):
    """A weight times the factor that a roll-back put on it."""

    def __init__(self, weight: float | Schedule, factor: float) -> None:
        self.weight, self.factor = weight, factor

    def __call__(self, images_seen: int) -> float:
        return self.factor * value_at(self.weight, images_seen)


def images_seen_of(line: bytes) -> float | None:
    """The clock of a line of health.jsonl; None for one that is damaged."""
    try:
        return float(json.loads(line.decode())["images_seen"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
