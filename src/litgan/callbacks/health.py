"""Health: named verdicts about the game while it is played, and what to do about them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from litgan import checkpoints, runs, telescope, tracking
from litgan.adversaries import Batch
from litgan.callbacks.gradients import networks, will_pass
from litgan.callbacks.realism import Realism
from litgan.gan import GAN
from litgan.loggers import WandbLogger
from litgan.noise import Noise
from litgan.sampling import choose_labels
from litgan.schedules import Schedule, value_at
from litgan.verdicts import VERDICTS, Factors, Finding, Judge

Policy: TypeAlias = Literal["warn", "stop", "rollback"]
AFFORDABLE = 64  # pixels a side: what extractors of larger pictures cost on a CPU, a look is not worth


class Health(Callback):
    """Looks at the game's vital signs at a cadence, and raises verdicts: SATURATED, VANISHED, OVERPOWERED,
    COLLAPSED, OSCILLATING, DIVERGED, MEMORISING (`litgan.verdicts` says what each means, and from where on).

    A verdict has to hold at `patience` looks in a row; it is raised once, until it has cleared for as long.
    It is logged as `health/<verdict>` (0 or 1, with the signs as `vitals/<name>`), added to `health.jsonl` in
    the run's folder, said on stderr, sent as a W&B alert, and summed up at the end of the run. Rank zero
    looks, and all ranks judge what it saw; between looks nothing is computed.

    Under the policy "rollback" the state of each look at which nothing is found, and of the start, is kept as
    `checkpoints/healthy.ckpt`. On a verdict weights, averages and optimizers go back to it, and learning
    rates and penalty weights are changed as the verdict says (`verdicts.Factors`), for good: a resumed run
    keeps the change. The clock does not go back: the batches and latents that follow are new ones, since the
    same ones might lead to the same place, and the curves go on.

    Args:
        every: images between two looks, 0 for never.
        policy: on a verdict "warn"; "stop", which ends the run in order; or "rollback".
        patience: looks in a row at which a verdict must hold. DIVERGED needs but one.
        tries: roll-backs in a run; after the last one verdicts are warnings.
        count: samples of each kind in a look.
        seed: of their fixed latents.

    Raises:
        ValueError: for another policy, or a patience below 1.
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
        if patience < 1:
            raise ValueError(f"health.patience is {patience}: give at least 1 look.")
        self.every, self.policy, self.tries, self.count, self.seed = every, policy, tries, count, seed
        self.judge = Judge(patience)
        self.looks = 0
        self.told: list[tuple[int, str]] = []  # images_seen and name of each verdict raised so far
        self.factors = Factors()  # by which roll-backs have changed the recipe
        self.rollbacks = 0
        self.rates: list[list[float]] = []  # the recipe's learning rates
        self.before: list[
            list[Tensor]
        ] = []  # the generator before an iteration with a look, and before the last
        self.reals: dict[str, Batch] = {}  # by split
        self.spread: Tensor | None = None  # mean distance between reals

    def on_train_start(self, trainer: Trainer, gan: GAN) -> None:
        self.rates = [list(rates) for rates in gan.base_rates]
        self.change(gan)
        if self.every and trainer.is_global_zero:
            self.begin(self.path(trainer), gan.images_seen)
        if self.every and self.policy == "rollback" and not self.healthy(trainer).exists():
            trainer.save_checkpoint(self.healthy(trainer))

    def on_train_batch_start(self, trainer: Trainer, gan: GAN, batch: Batch, batch_idx: int) -> None:
        if trainer.is_global_zero:
            soon = will_pass(gan, batch, self.every, ahead=1)
            if soon or will_pass(gan, batch, self.every):
                self.before = [*self.before[-1:], telescope.copies(gan.generator)]

    def on_train_batch_end(
        self, trainer: Trainer, gan: GAN, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        if not gan.passes(self.every):
            return
        with tracking.aside(gan):
            seen = self.examine(trainer, gan, len(batch[0])) if trainer.is_global_zero else {}
            vitals = trainer.strategy.broadcast(seen)
            judgement = self.judge(vitals)
            self.looks += 1
            marks = {f"health/{name.lower()}": float(name in self.judge.raised) for name in VERDICTS}
            signs = {f"vitals/{name}": value for name, value in vitals.items()}
            tracking.publish(trainer, {**marks, **signs, "health/rollbacks": float(self.rollbacks)})
            for name in judgement.raised:
                self.raise_verdict(trainer, gan, name, judgement.findings[name])
            if judgement.raised and self.policy == "stop":
                trainer.should_stop = True
            elif judgement.raised and self.policy == "rollback" and self.rollbacks < self.tries:
                self.roll_back(trainer, gan, judgement.raised)
            elif judgement.healthy and self.policy == "rollback":
                trainer.save_checkpoint(self.healthy(trainer))

    def on_exception(self, trainer: Trainer, gan: GAN, exception: BaseException) -> None:
        if isinstance(exception, FloatingPointError) and self.every:  # between two looks
            self.raise_verdict(trainer, gan, "DIVERGED", Finding(math.nan, math.nan, True))

    def on_train_end(self, trainer: Trainer, gan: GAN) -> None:
        if self.looks and trainer.is_global_zero:
            runs.warn(self.summary())

    def summary(self) -> str:
        """One sentence on the whole run."""
        told = ", ".join(f"{name} after {at:,} images" for at, name in self.told)
        back = f"; rolled back {self.rollbacks} times" if self.rollbacks else ""
        return f"health: {told or 'no verdict'} in {self.looks} looks{back}."

    @torch.no_grad()
    def examine(self, trainer: Trainer, gan: GAN, size: int) -> dict[str, float]:
        """The vital signs, in one transfer; `size` samples go through the networks at once."""
        real = self.scores(trainer, gan, "train", size)
        latents = gan.latents(Noise(self.seed, 0, 0, len(real), "sample", gan.device))
        labels = choose_labels(None, 0, len(real), gan.num_classes)
        looks = [
            telescope.look(
                gan.generator, gan.discriminator, gan.loss, latents[part],
                None if labels is None else labels.to(gan.device)[part], real_logits=real[part],
            ) for part in (slice(at, at + size) for at in range(0, len(real), size))
        ]  # fmt: skip
        fake = torch.cat([look.logits for look in looks]).float()
        signs = {
            "derivative": telescope.derivative_share(gan.loss.generator, real=real, fake=fake, of=["fake"]),
            "doubt": telescope.derivative_share(
                gan.loss.discriminator, real=real, fake=fake, of=["real", "fake"]
            ),
            "gradient": telescope.gradient_use(gan.generator_optimizer.optimizer)[1],
            "feedback": telescope.mean_norm(torch.cat([look.feedback for look in looks])),
            "separation": telescope.separation(real=real, fake=fake),
            "diversity": self.diversity(trainer, gan, torch.cat([look.samples for look in looks])),
            "turning": self.turning(gan),
            **{f"weights_{name}": telescope.total_norm(telescope.copies(network))
               for name, network in networks(gan).items()},
            "logits": torch.cat([real, fake]).square().mean().sqrt(),
            **self.overfitting(real, self.scores(trainer, gan, "test", size), fake),
        }  # fmt: skip
        return dict(zip(signs, torch.stack([sign.float() for sign in signs.values()]).tolist(), strict=True))

    def scores(self, trainer: Trainer, gan: GAN, split: str, size: int) -> Tensor:
        """Logits [N, K] of fixed reals of a split; none where there is no such split."""
        samples, labels = self.fixed_reals(trainer, gan, split)
        parts = [slice(at, at + size) for at in range(0, len(samples), size)]
        with telescope.evaluating(gan.discriminator):
            logits = [gan.discriminator(samples[p], None if labels is None else labels[p]) for p in parts]
        return torch.cat(logits).float() if logits else torch.empty(0, 1)

    def fixed_reals(self, trainer: Trainer, gan: GAN, split: str) -> Batch:
        """The first of a metric's reals, read at the first look; kept on the device."""
        if split not in self.reals:
            data, samples, labels = trainer.datamodule, torch.empty(0), None
            if split in data.splits:
                try:
                    batches = list(data.real_batches(min(self.count, data.size(split)), split=split))
                    samples = torch.cat([batch for batch, _ in batches]).to(gan.device)
                    if gan.num_classes:
                        labels = torch.cat([label for _, label in batches]).to(gan.device)
                except (OSError, ValueError) as error:
                    if split == "train":
                        raise
                    runs.warn(f"The split {split!r} cannot be read ({error}): MEMORISING is not watched for.")
            self.reals[split] = samples, labels
        return self.reals[split]

    def diversity(self, trainer: Trainer, gan: GAN, fake: Tensor) -> Tensor:
        """Distance between fakes over that between reals, of the run's features where they cost little."""
        features = self.features(trainer, gan)
        if self.spread is None:
            self.spread = torch.pdist(features(self.fixed_reals(trainer, gan, "train")[0])).mean()
        return torch.pdist(features(fake)).mean() / self.spread.clamp_min(1e-30)

    def features(self, trainer: Trainer, gan: GAN) -> Any:
        """Samples to vectors [N, D]: as the realism callback sees them, or as they are."""
        realism = next((one for one in trainer.callbacks if isinstance(one, Realism) and one.every), None)
        if realism is not None:
            extractor = realism.network(gan)
            if gan.device.type != "cpu" or extractor.size <= AFFORDABLE:
                return extractor
        return lambda samples: samples.float().flatten(1)

    def turning(self, gan: GAN) -> Tensor:
        """Cosine between the last two steps of the generator; 0 where only one has been seen."""
        before, self.before = self.before, []
        if len(before) < 2:
            return torch.zeros((), device=gan.device)
        earlier = torch._foreach_sub(before[1], before[0])
        return telescope.steps_cosine(earlier, telescope.step(before[1], gan.generator))

    def overfitting(self, train: Tensor, held_out: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Karras et al. 2020 (ADA), eq. 1, left: 0 where unseen reals score as those seen, 1 as fakes."""
        if not len(held_out):
            return {}
        train, held_out, fake = train.mean(1), held_out.mean(1), fake.mean(1)
        ahead = train.mean() - held_out.mean()
        error = (train.var() / len(train) + held_out.var() / len(held_out)).sqrt()
        gap = (train.mean() - fake.mean()).clamp_min(1e-3 * ahead.abs() + 1e-12)
        return {"overfitting": ahead / gap, "overfitting_sigmas": ahead / error.clamp_min(1e-12)}

    def raise_verdict(self, trainer: Trainer, gan: GAN, name: str, finding: Finding) -> None:
        """Tells the world of a verdict."""
        verdict = VERDICTS[name]
        self.told.append((gan.images_seen, name))
        self.tell(trainer, gan, name, verdict.meaning, verdict.remedy, finding.value, finding.threshold)

    def tell(
        self, trainer: Trainer, gan: GAN, what: str, meaning: str, remedy: str, value: float, threshold: float
    ) -> None:
        """One line in health.jsonl, one on stderr, one alert."""
        if not trainer.is_global_zero:
            return
        event = {"images_seen": gan.images_seen, "verdict": what, "meaning": meaning, "remedy": remedy}
        numbers = {"value": value, "threshold": threshold}
        event |= {key: one if math.isfinite(one) else None for key, one in numbers.items()}  # JSON has no NaN
        with runs.dispensable("The verdict"), self.path(trainer).open("a") as file:
            file.write(json.dumps(event) + "\n")
        runs.warn(f"{what} after {gan.images_seen:,} images: {meaning} {remedy}")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.alert(
                    title=what, text=f"After {gan.images_seen:,} images. {meaning} {remedy}"
                )

    def roll_back(self, trainer: Trainer, gan: GAN, names: list[str]) -> None:
        """Goes on from the last healthy state, with the remedies of these verdicts; alike on all ranks."""
        saved = checkpoints.read(self.healthy(trainer))
        gan.load_state_dict(saved["state_dict"])
        for optimizer, state in zip(trainer.optimizers, saved["optimizer_states"], strict=True):
            optimizer.load_state_dict(state)
        plugin = trainer.precision_plugin
        plugin.load_state_dict(saved.get(type(plugin).__qualname__, {}))
        together = [min(factors) if min(factors) < 1 else max(factors)
                    for factors in zip(*(VERDICTS[name].factors for name in names), strict=True)]  # fmt: skip
        self.factors, self.rollbacks = self.factors * Factors(*together), self.rollbacks + 1
        self.change(gan)
        self.judge.restart()
        at = saved["litgan"]["images_seen"]
        meaning = f"Weights and optimizers are those of {at:,} images again, after {' and '.join(names)}."
        remedy = f"Changed for the rest of the run, next to the recipe: {self.factors}."
        self.tell(trainer, gan, "ROLLED BACK", meaning, remedy, float(at), math.nan)

    def change(self, gan: GAN) -> None:
        """Applies `factors` to the recipe's learning rates and penalty weights."""
        for index, (rates, factor) in enumerate(zip(self.rates[:2], self.factors[:2], strict=True)):
            gan.base_rates[index] = [rate * factor for rate in rates]
            for group, rate in zip(
                gan.trainer.optimizers[index].param_groups, gan.base_rates[index], strict=True
            ):
                group["base_lr"] = rate
        for penalty in gan.penalties:
            original = penalty.weight.weight if isinstance(penalty.weight, Changed) else penalty.weight
            if self.factors.penalty != 1:
                penalty.weight = Changed(original, self.factors.penalty)

    def begin(self, path: Path, images_seen: int) -> None:
        """Makes health.jsonl, or drops what a lost part of the run wrote into it."""
        with runs.dispensable("The file of verdicts"):
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}{checkpoints.PARTIAL}")
            partial.write_text("".join(line for line in lines if written_at(line) <= images_seen))
            os.replace(partial, path)

    def path(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "health.jsonl"

    def healthy(self, trainer: Trainer) -> Path:
        return Path(trainer.default_root_dir) / "checkpoints" / "healthy.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {
            "judge": self.judge.state_dict(), "looks": self.looks, "told": self.told,
            "factors": list(self.factors), "rollbacks": self.rollbacks,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.judge.load_state_dict(state_dict["judge"])
        self.looks, self.rollbacks = state_dict["looks"], state_dict["rollbacks"]
        self.told = [(at, name) for at, name in state_dict["told"]]
        self.factors = Factors(*state_dict["factors"])


class Changed(Schedule):
    """A weight times the factor that a roll-back put on it."""

    def __init__(self, weight: float | Schedule, factor: float) -> None:
        self.weight, self.factor = weight, factor

    def __call__(self, images_seen: int) -> float:
        return self.factor * value_at(self.weight, images_seen)


def written_at(line: str) -> float:
    """The clock of a line of health.jsonl; infinite for one that was cut short."""
    try:
        return float(json.loads(line)["images_seen"])
    except (ValueError, KeyError, TypeError):
        return math.inf
