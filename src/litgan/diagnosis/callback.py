"""The callback that measures a training GAN, reports failure states and applies a policy."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import WandbLogger

from litgan import checkpoints
from litgan.adversarial_weight import present_weight
from litgan.callbacks.feedback import will_be_due
from litgan.callbacks.throughput import untimed
from litgan.diagnosis.checks import CHECKS, Monitor, Result, Scaling, rollback_scaling
from litgan.diagnosis.metrics import DiagnosticMetrics, weight_norms
from litgan.files import atomic_write, ignore_disk_errors, rename_damaged, warn
from litgan.gan import GAN, Batch
from litgan.gradient_flow import total_norm
from litgan.resuming import restoring
from litgan.schedules import Schedule, value_at
from litgan.updates import unpack

Policy: TypeAlias = Literal["warn", "stop", "rollback"]


class Diagnosis(Callback):
    """Measures the GAN every few images and reports failure states: SATURATED, VANISHED, OVERPOWERED,
    COLLAPSED, OSCILLATING, DIVERGED, MEMORIZING, UNFAITHFUL (`litgan.diagnosis.checks` defines each).

    A state becomes active after it has held in `patience` consecutive measurements, and clears after it has
    not held in as many. When it becomes active, it is written to `health.jsonl` in the run's folder, printed
    to stderr and sent as a W&B alert. Every measurement logs `diagnosis/<state>` (0 or 1) and the metrics
    as `diagnostics/<metric>`; one line at the end of the run summarizes. Rank zero measures and broadcasts
    the metrics. Iterations without a measurement cost nothing. Before a late adversary is let in
    (`discriminator_start`, `adversarial_weight`) no state is reported.

    The policy "rollback" saves `checkpoints/healthy.ckpt` at the start and at every measurement after
    `patience` healthy ones. When a state becomes active, it restores weights, averages and optimizers from
    there. The network whose weights drifted more gets its learning rate divided by the drift ratio (clamped
    to 10..100); penalty weights double. A resumed run keeps both changes. `images_seen` is not restored, so
    training continues on new batches and latents: the old ones might fail again. A value that is not finite
    ends the run under any policy.

    Args:
        every: images between two measurements; 0 turns the callback off.
        policy: "warn"; "stop" ends the run in order; "rollback" restores the last healthy state.
        patience: consecutive measurements in which a state must hold. DIVERGED needs only one.
        tries: maximum number of roll-backs in a run; later states are warnings.
        count: real and generated samples in a measurement.
        seed: of the fixed latents.

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
        for name, number, least in (("every", every, 0), ("patience", patience, 1), ("count", count, 2)):
            if number < least:
                raise ValueError(f"health.{name} is {number}: give at least {least}.")
        self.every, self.policy, self.tries = every, policy, tries
        self.metrics, self.monitor = DiagnosticMetrics(count, seed), Monitor(patience)
        self.measurements = 0
        self.history: list[tuple[int, str]] = []  # images_seen and name of each state so far
        self.scaling = Scaling()  # the product of all roll-backs' changes
        self.rollbacks = 0
        self.resumed_at: int | None = None  # images_seen at the start, until health.jsonl is prepared
        self.recipe_lrs: list[list[float]] = []  # as configured, by optimizer and parameter group

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.recipe_lrs = [[group["initial_lr"] for group in one.param_groups] for one in trainer.optimizers]
        self.apply_scaling(gan)
        if not self.monitor.baseline:  # not resumed
            self.monitor.baseline = {name: norm.item() for name, norm in weight_norms(gan).items()}
        self.resumed_at = gan.images_seen if self.every and trainer.is_global_zero else None
        path = self.healthy_checkpoint(trainer)
        resumed = gan.images_seen > 0 and trainer.strategy.broadcast(path.exists())
        if self.every and self.policy == "rollback" and not resumed:  # replaces another run's
            trainer.save_checkpoint(path, weights_only=False)

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, batch: Batch, batch_idx: int) -> None:
        if not trainer.is_global_zero or (gan.discriminator_updates + 1) % gan.discriminator_steps:
            return
        if any(will_be_due(gan, batch, self.every, ahead) for ahead in (0, 1)):
            self.metrics.snapshot_weights(gan)
        else:
            self.metrics.clear_snapshots()

    def on_train_batch_end(
        self, trainer: Trainer, gan: GAN, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if self.resumed_at is not None and gan.iteration_is_complete:  # a failed start changes no file
            self.prepare_file(self.events_path(trainer), self.resumed_at)
            self.resumed_at = None
        if not gan.is_due(self.every):
            return
        with untimed(gan):
            measured = (
                self.metrics(trainer, gan, len(unpack(batch, gan.condition)[0]))
                if trainer.is_global_zero
                else {}
            )
            metrics = trainer.strategy.broadcast(measured)
            if not present_weight(gan):  # so nothing fails yet; what the samples were like before is kept
                before = {name: metrics[name] for name in ("pair_error",) if name in metrics}
                self.monitor.baseline |= before
                return
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
        if isinstance(exception, FloatingPointError) and self.every:  # between two measurements
            self.report_state(trainer, gan, "DIVERGED", Result(math.nan, math.nan, True))
        self.on_train_end(trainer, gan)

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        if self.measurements or self.history:
            warn(self.summary())

    def summary(self) -> str:
        """One sentence about the whole run."""
        states = ", ".join(f"{name} after {at:,} images" for at, name in self.history)
        back = f"; rolled back {self.rollbacks} times" if self.rollbacks else ""
        return f"health: {states or 'no failure state'} in {self.measurements} measurements{back}."

    def report_state(self, trainer: Trainer, gan: GAN, name: str, result: Result) -> None:
        """Records a state that has become active and reports it."""
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
        """Writes an event to health.jsonl and stderr, and sends a W&B alert."""
        if not trainer.is_global_zero:
            return
        event = {"images_seen": gan.images_seen, "verdict": state, "meaning": meaning, "remedy": remedy}
        numbers = {"value": value, "threshold": threshold}
        event |= {
            key: number if math.isfinite(number) else None for key, number in numbers.items()
        }  # JSON has no NaN
        with ignore_disk_errors("The diagnosis"):
            self.events_path(trainer).parent.mkdir(parents=True, exist_ok=True)  # may have been removed
            with self.events_path(trainer).open("a") as file:
                file.write(json.dumps(event) + "\n")
        warn(f"{state} after {gan.images_seen:,} images: {meaning} {remedy}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.alert(
                    title=state, text=f"After {gan.images_seen:,} images. {meaning} {remedy}"
                )

    def roll_back(self, trainer: Trainer, gan: GAN, names: list[str]) -> None:
        """Restores the last healthy state on all ranks and lowers a learning rate.

        Raises:
            ValueError: if the checkpoint cannot be read or has another architecture; then nothing changes.
        """
        saved = checkpoints.read_together(self.healthy_checkpoint(trainer))
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
        meaning = f"Weights and optimizers were restored to {at:,} images after {' and '.join(names)}."
        remedy = f"For the rest of the run, relative to the recipe: {self.scaling}."
        self.report(trainer, gan, "ROLLED BACK", meaning, remedy, float(at), math.nan)

    def apply_scaling(self, gan: GAN) -> None:
        """Multiplies the recipe's learning rates and penalty weights by `scaling`."""
        for index, (rates, factor) in enumerate(zip(self.recipe_lrs[:2], self.scaling[:2], strict=True)):
            for group, rate in zip(gan.trainer.optimizers[index].param_groups, rates, strict=True):
                group["initial_lr"] = rate * factor
        for penalty in gan.penalties:
            original = penalty.weight.weight if isinstance(penalty.weight, ScaledSchedule) else penalty.weight
            if self.scaling.penalty != 1:
                penalty.weight = ScaledSchedule(original, self.scaling.penalty)

    def prepare_file(self, path: Path, images_seen: int) -> None:
        """Creates health.jsonl, or drops lines beyond `images_seen` on resume; renames a damaged file."""
        with ignore_disk_errors("health.jsonl"):
            lines = path.read_bytes().splitlines() if path.is_file() else []
            clocks = [images_seen_of(line) for line in lines]
            if None in clocks or (os.path.lexists(path) and not path.is_file()):
                rename_damaged(path)
            valid = [
                line for line, at in zip(lines, clocks, strict=True) if at is not None and at <= images_seen
            ]
            with atomic_write(path) as partial:
                partial.write_bytes(b"".join(line + b"\n" for line in valid))

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
        with restoring("Diagnosis"):
            self.monitor.load_state_dict(state_dict["monitor"])
            self.measurements, self.rollbacks = int(state_dict["measurements"]), int(state_dict["rollbacks"])
            self.history = [(int(at), str(name)) for at, name in state_dict["history"]]
            self.scaling = Scaling(*map(float, state_dict["scaling"]))


def weight_drift(saved: dict[str, Any], gan: GAN, side: str) -> float:
    """||w - w_saved|| / ||w_saved|| over all weights of a network; inf if not finite."""
    now = dict(getattr(gan, side).named_parameters())
    before = [saved[f"{side}.{name}"].to(weight.device) for name, weight in now.items()]
    drift = total_norm(torch._foreach_sub(list(now.values()), before)) / total_norm(before).clamp_min(1e-30)
    return drift.item() if drift.isfinite() else math.inf


class ScaledSchedule(Schedule):
    """A penalty weight or schedule, multiplied by a constant factor."""

    def __init__(self, weight: float | Schedule, factor: float) -> None:
        self.weight, self.factor = weight, factor

    def __call__(self, images_seen: int) -> float:
        return self.factor * value_at(self.weight, images_seen)


def images_seen_of(line: bytes) -> float | None:
    """`images_seen` of a line of health.jsonl; None if the line is damaged."""
    try:
        return float(json.loads(line.decode())["images_seen"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
