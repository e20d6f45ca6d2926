"""GAN: a generator and a discriminator that learn by backpropagation through one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan import checkpoints, tracking
from litgan.accumulation import Limits, check_limits, clip, refuse_trainer_options, split, unreduced
from litgan.ema import EMA
from litgan.losses import AdversarialLoss
from litgan.noise import Noise, derive_seed
from litgan.penalties import Penalty
from litgan.precision import in_full_range, scale_each_adversary, scales
from litgan.sampling import check_networks, draw_samples, make_network
from litgan.schedules import Schedule, value_at

Record: TypeAlias = dict[str, Tensor]  # what a turn tells of itself, still on its device
Batch: TypeAlias = tuple[Tensor, Tensor | None]  # real samples, labels or None
Objective: TypeAlias = Callable[[Tensor, Tensor | None, Noise], tuple[Tensor, Record]]


class GAN(LightningModule):
    """The adversarial game, over any samples: images, sound, music, text or points.

    Args:
        generator: makes the generator from (sample_shape, num_classes).
        discriminator: makes the discriminator from the same two.
        loss: what each of the two minimises, as a function of logits.
        generator_optimizer: makes the generator's optimizer from its parameters.
        discriminator_optimizer: makes the discriminator's.
        penalties: what the discriminator minimises besides.
        discriminator_turns: turns of the discriminator, each with a fresh batch, per generator turn.
        micro_batches: equal parts in which a turn takes its batch, to save memory; norm-free networks learn
            from the parts what they would from the whole.
        clip_grad_norm: largest norm of the gradient of an adversary, the same for each or
            {generator: ..., discriminator: ...}; None for no limit.
        learning_rate: factor on both optimizers' learning rates, e.g. a `litgan.schedules.WarmUp`.
        ema_half_life: of the generator's average, in images.
        ema_ramp_up: share of `images_seen` that bounds that half-life early on; 0 for none.
        sample_shape: shape of one sample, without the batch; the command line takes it from the data.
        num_classes: classes that the networks are conditioned on, 0 for none; taken from the data.
        seed: of the weights, the latents and every other draw.

    Raises:
        ValueError: if a number of turns or parts is below 1, or if a network does not fit the data.
    """

    def __init__(
        self,
        generator: Callable[[tuple[int, ...], int], nn.Module],
        discriminator: Callable[[tuple[int, ...], int], nn.Module],
        loss: AdversarialLoss,
        generator_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        discriminator_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        penalties: Sequence[Penalty] = (),
        discriminator_turns: int = 1,
        micro_batches: int = 1,
        clip_grad_norm: Limits = None,
        learning_rate: float | Schedule = 1.0,
        ema_half_life: float | Schedule = 10_000,
        ema_ramp_up: float = 0.05,
        sample_shape: tuple[int, ...] = (1, 32, 32),
        num_classes: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, number in (("discriminator_turns", discriminator_turns), ("micro_batches", micro_batches)):
            if number < 1:
                raise ValueError(f"{name} is {number}: give at least 1.")
        self.automatic_optimization = False
        self.sample_shape, self.num_classes, self.seed = tuple(sample_shape), num_classes, seed
        with torch.random.fork_rng(devices=[]):  # equal seeds give equal weights, whatever ran before
            torch.manual_seed(seed)
            self.generator = make_network("generator", generator, self.sample_shape, num_classes)
            self.discriminator = make_network("discriminator", discriminator, self.sample_shape, num_classes)
        check_networks(self.generator, self.discriminator, self.sample_shape, num_classes)
        if len(self.sample_shape) == 3:  # images: the memory layout in which convolutions run fastest
            self.to(memory_format=torch.channels_last)
        self.ema = EMA(self.generator, ema_half_life, ema_ramp_up)
        self.loss, self.penalties = loss, tuple(penalties)
        self.optimizer_factories = (generator_optimizer, discriminator_optimizer)
        self.discriminator_turns, self.learning_rate = discriminator_turns, learning_rate
        self.micro_batches, self.clip_grad_norm = micro_batches, clip_grad_norm
        self.turn_of = ""  # whose turn it is
        self.images_seen = 0  # the clock: real samples shown to the discriminator, over all ranks
        self.turns = 0  # turns of the discriminator since the run began
        self.recipe: dict[str, Any] = {}  # plain data from which a checkpoint alone rebuilds the run
        self.images_per_iteration = 0
        self.told: Record = {}  # what each turn last told of itself; lazy penalties are silent in most
        self.latest: dict[str, float] = {}  # what was last recorded, for the progress bar
        self.seconds_aside = 0.0  # spent on pictures, metrics and checkpoints, not on training

    # -- the game ------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Record:
        """A turn of the discriminator and, every `discriminator_turns`-th time, one of the generator."""
        real, labels = batch
        torch.manual_seed(derive_seed("networks", self.seed, self.turns, self.global_rank))  # dropout and kin
        record = self.discriminator_turn(real, labels)
        self.images_seen += len(real) * self.trainer.world_size
        if (self.turns + 1) % self.discriminator_turns == 0:
            record |= self.generator_turn(real, labels)
        self.turns += 1
        self.told |= record
        return record

    def discriminator_turn(self, real: Tensor, labels: Tensor | None) -> Record:
        """The discriminator learns to tell `real` from what the generator makes now."""
        optimizer, objective = self.discriminator_optimizer, self.discriminator_objective
        return self.descend("discriminator", optimizer, objective, (real, labels))

    def generator_turn(self, real: Tensor, labels: Tensor | None) -> Record:
        """The generator learns from the feedback: the discriminator's error, carried back into it."""
        record = self.descend("generator", self.generator_optimizer, self.generator_objective, (real, labels))
        self.images_per_iteration = len(real) * self.trainer.world_size * self.discriminator_turns
        self.ema.update(self.generator, images_seen=self.images_seen, images=self.images_per_iteration)
        return record

    def discriminator_objective(
        self, real: Tensor, labels: Tensor | None, noise: Noise
    ) -> tuple[Tensor, Record]:
        """What the discriminator minimises: the mean loss of real and fake samples, and the penalties due."""
        due = [penalty for penalty in self.penalties if self.turns % penalty.every == 0]
        sides = {side for penalty in due for side in penalty.differentiates}
        with torch.no_grad():
            fake = self.generator(self.latents(noise), labels)
        real, real_logits = self.judge(real, labels, "real" in sides)
        fake, fake_logits = self.judge(fake, labels, "fake" in sides)
        objective = self.loss.discriminator(real=real_logits, fake=fake_logits).mean()
        record = {"loss/discriminator": objective, "logits/real": real_logits, "logits/fake": fake_logits}
        with in_full_range(self.device) as anew:  # under float16 alone the penalties need a pass of their own
            if due and anew:
                real, real_logits = self.judge(real.float(), labels, "real" in sides)
                fake, fake_logits = self.judge(fake.float(), labels, "fake" in sides)
            for penalty in due:
                value = penalty(
                    self.discriminator, real=real, fake=fake, real_logits=real_logits,
                    fake_logits=fake_logits, labels=labels, noise=noise.stream(penalty.name),
                ).mean()  # fmt: skip
                objective = objective + value_at(penalty.weight, self.images_seen) * penalty.every * value
                record[f"penalty/{penalty.name}"] = value
        return objective, record

    def generator_objective(self, real: Tensor, labels: Tensor | None, noise: Noise) -> tuple[Tensor, Record]:
        """What the generator minimises: the mean loss of what it makes of `noise`."""
        fake = self.generator(self.latents(noise), labels)
        real_logits = self.discriminator(real, labels) if self.loss.pairs else None
        fake_logits = self.discriminator(fake, labels)
        objective = self.loss.generator(real=real_logits, fake=fake_logits).mean()
        return objective, {"loss/generator": objective}

    def judge(self, samples: Tensor, labels: Tensor | None, differentiate: bool) -> tuple[Tensor, Tensor]:
        """Samples, cut off from what made them, and their logits, differentiable in them or not."""
        samples = samples.detach().requires_grad_(differentiate)
        return samples, self.discriminator(samples, labels)

    def descend(self, name: str, optimizer: LightningOptimizer, objective: Objective, batch: Batch) -> Record:
        """One step down the mean of `objective` over the batch, for the parameters of `optimizer` alone.

        The batch is taken in `micro_batches` equal parts, and ranks reduce their gradients with the last.
        Only the generator's step passes through Lightning's wrapper, which counts it: thus
        `trainer.global_step` advances by one an iteration and `max_steps` means iterations.

        Args:
            name: of the network whose turn it is: key of its noise, its clipping and its loss scale.
            optimizer: of that network.
            objective: of samples, labels and noise; gives a scalar and what to record.
            batch: of this rank.

        Raises:
            FloatingPointError: if the objective is not finite (off the CPU: at the next logging point).
        """
        self.turn_of = name
        factor = value_at(self.learning_rate, self.images_seen)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        records: list[Record] = []
        with self.toggled_optimizer(optimizer):
            for part, last in split(*batch, self.noise(name, len(batch[0])), self.micro_batches):
                value, record = objective(*part)
                if value.device.type == "cpu" and not value.isfinite():
                    sentence = tracking.not_finite(f"loss/{name}", value.item(), self.images_seen)
                    raise FloatingPointError(sentence)
                if not records:
                    optimizer.zero_grad()
                with nullcontext() if last else unreduced(self.trainer):
                    self.manual_backward(value / self.micro_batches)
                records.append({key: value.detach().float().mean() for key, value in record.items()})
            if name == "generator":
                optimizer.step()
            else:
                self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        if len(records) == 1:
            return records[0]
        return {key: torch.stack([record[key] for record in records]).mean() for key in records[0]}

    def noise(self, name: str, count: int) -> Noise:
        """The randomness of this turn for the `count` samples of this rank."""
        return Noise(self.seed, self.turns, self.global_rank * count, count, name, self.device)

    def latents(self, noise: Noise) -> Tensor:
        """Latents [count, latent_dim] ~ N(0, 1)."""
        return noise.normal(self.generator.latent_dim)  # type: ignore[arg-type]

    # -- machinery -----------------------------------------------------------------------------

    def configure_optimizers(self) -> list[Optimizer]:
        networks = (self.generator, self.discriminator)
        optimizers = [
            make(parameter for parameter in network.parameters() if parameter.requires_grad)
            for make, network in zip(self.optimizer_factories, networks, strict=True)
        ]
        self.base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        return optimizers

    @property
    def generator_optimizer(self) -> LightningOptimizer:
        return self.optimizers()[0]  # type: ignore[index]

    @property
    def discriminator_optimizer(self) -> LightningOptimizer:
        return self.optimizers()[1]  # type: ignore[index]

    def configure_callbacks(self) -> list[Callback]:
        refuse_trainer_options(self.trainer)  # the last hook before Lightning refuses them, without a remedy
        return []

    def setup(self, stage: str) -> None:
        scale_each_adversary(self.trainer)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        clip(optimizer, self.clip_grad_norm, self.turn_of)

    def on_fit_start(self) -> None:
        check_limits(self.clip_grad_norm, [name for name, _ in self.named_children() if name != "ema"])
        data_shape = getattr(getattr(self.trainer, "datamodule", None), "sample_shape", self.sample_shape)
        if tuple(data_shape) != self.sample_shape:
            raise ValueError(
                f"The data's samples have shape {tuple(data_shape)}, this GAN makes {self.sample_shape}: "
                "build the GAN with the data's sample_shape, or change the data's resolution or channels."
            )

    def on_train_start(self) -> None:
        """A resumed run takes the learning rates of its recipe, not of its checkpoint: they may be new."""
        for optimizer in self.trainer.optimizers:  # those that a subclass added keep their own
            for group in optimizer.param_groups:
                group.setdefault("base_lr", group["lr"])
        for optimizer, rates in zip(self.trainer.optimizers, self.base_rates, strict=False):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["base_lr"] = rate

    def on_train_batch_end(self, outputs: Record, batch: Any, batch_idx: int) -> None:
        if self.iteration_ends and self.trainer.global_step % self.trainer.log_every_n_steps == 0:
            tracking.record(self.trainer, {**self.told, **scales(self.trainer)})

    @property
    def iteration_ends(self) -> bool:
        """Whether the last turn was the last one of its iteration."""
        return self.turns % self.discriminator_turns == 0

    def passes(self, every: int) -> bool:
        """Whether the iteration that just ended passed a multiple of `every` images; never for 0."""
        if not every or not self.iteration_ends:
            return False
        return self.images_seen // every > (self.images_seen - self.images_per_iteration) // every

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """What the discriminator makes of real samples; the realism callback adds the distances."""
        real, labels = batch
        self.log("logits/real", self.discriminator(real, labels).float().mean(), batch_size=len(real))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["litgan"] = {
            "images_seen": self.images_seen, "turns": self.turns, "recipe": self.recipe
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoints.check_architecture(checkpoint, self)
        self.images_seen = checkpoint["litgan"]["images_seen"]
        self.turns = checkpoint["litgan"]["turns"]

    # -- the finished generator ----------------------------------------------------------------

    def sample(
        self,
        count: int,
        seed: int = 0,
        labels: Tensor | Sequence[int] | None = None,
        *,
        first: int = 0,
        truncation: float | None = None,
        raw: bool = False,
    ) -> Tensor:
        """Samples [count, *sample_shape] in the data's range, of the averaged generator.

        Sample i depends on (seed, first + i) alone: the first 64 of 1,000 are the 64 of 64.

        Args:
            count: how many.
            seed: of the latents.
            labels: class of each sample, repeated as needed; None takes all classes in turn.
            first: index of the first sample.
            truncation: latents are drawn from the normal cut off at +- this value (Brock et al. 2019,
                BigGAN, section 3.1); None for the whole normal.
            raw: take the weights of the last step, not their average.

        Raises:
            ValueError: if a label is not a class, or `truncation` is not positive.
        """
        network = self.generator if raw else self.ema.average
        noise = Noise(seed, 0, first, count, "sample", self.device)
        return draw_samples(network, noise, labels, num_classes=self.num_classes, truncation=truncation)

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path, map_location: Any = None, **arguments: Any
    ) -> GAN:
        """The GAN of a checkpoint, rebuilt from what the checkpoint says; no code of it is run.

        Args:
            checkpoint_path: a file that `litgan fit` or a Lightning Trainer saved.
            map_location: device to put it on; None for the CPU.
            **arguments: the constructor's, where the run was not started from a recipe.

        Raises:
            ValueError: if the file cannot be read, or holds another architecture.
        """
        checkpoint = checkpoints.read(checkpoint_path, map_location)
        gan = cls(**arguments) if arguments else checkpoints.build_gan(checkpoint, cls)
        gan.on_load_checkpoint(checkpoint)
        gan.load_state_dict(checkpoint["state_dict"])
        gan.recipe = checkpoint["litgan"]["recipe"]
        return gan.to(map_location or "cpu").eval()
