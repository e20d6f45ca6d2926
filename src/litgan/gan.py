"""GAN: a generator and a discriminator that learn by backpropagation through one another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan import checkpoints
from litgan.accumulation import Limits
from litgan.adversaries import Adversaries, Batch, Record
from litgan.augment import Augmentation
from litgan.compilation import uncompiled
from litgan.ema import EMA
from litgan.losses import AdversarialLoss
from litgan.noise import Noise, seed_device
from litgan.one_stage import OneStage, check_one_stage, check_penalty, learning
from litgan.penalties import GeneratorPenalty, Penalty
from litgan.precision import in_full_range
from litgan.rebuild import Builder
from litgan.sampling import check_networks, make_network
from litgan.schedules import Schedule, value_at

Update: TypeAlias = Literal["alternating", "one_stage"]


class GAN(Adversaries):
    """The adversarial game, over any samples: images, sound, music, text or points.

    Args:
        generator: makes the generator from (sample_shape, num_classes).
        discriminator: makes the discriminator from the same two.
        loss: what each of the two minimises, as a function of logits.
        generator_optimizer: makes the generator's optimizer from its parameters.
        discriminator_optimizer: makes the discriminator's.
        penalties: what the discriminator minimises besides.
        generator_penalties: what the generator minimises besides.
        augmentation: changes what the discriminator sees, real and fake, in both turns.
        discriminator_turns: turns of the discriminator, each with a fresh batch, per generator turn.
        micro_batches: equal parts in which a turn takes its batch, to save memory; norm-free networks learn
            from the parts what they would from the whole.
        update: "alternating", or "one_stage": the generator learns from the discriminator's own pass over
            its fakes, which spares it a pass through each network (see `litgan.one_stage`).
        compile: the turns with torch.compile; a text is its mode, "reduce-overhead" for CUDA graphs.
        clip_grad_norm: largest norm of the gradient of an adversary, the same for each or
            {generator: ..., discriminator: ...}; None for no limit.
        learning_rate: factor on both optimizers' learning rates, e.g. a `litgan.schedules.WarmUp`.
        ema_half_life: of the generator's average, in images.
        ema_ramp_up: share of `images_seen` that bounds that half-life early on; 0 for none.
        more_half_lives: of further averages to choose from after training (Karras et al. 2024, EDM2).
        sample_shape: shape of one sample, without the batch; the command line takes it from the data.
        num_classes: classes that the networks are conditioned on, 0 for none; taken from the data.
        seed: of the weights, the latents and every other draw.

    Raises:
        ValueError: if a number of turns or parts is below 1, if a network does not fit the data, or if one
            stage cannot serve both turns.
    """

    def __init__(
        self,
        generator: Callable[[tuple[int, ...], int], nn.Module],
        discriminator: Callable[[tuple[int, ...], int], nn.Module],
        loss: AdversarialLoss,
        generator_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        discriminator_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        penalties: Sequence[Penalty] = (),
        generator_penalties: Sequence[GeneratorPenalty] = (),
        augmentation: Augmentation | None = None,
        discriminator_turns: int = 1,
        micro_batches: int = 1,
        update: Update = "alternating",
        compile: bool | str = False,
        clip_grad_norm: Limits = None,
        learning_rate: float | Schedule = 1.0,
        ema_half_life: float | Schedule = 10_000,
        ema_ramp_up: float = 0.05,
        more_half_lives: Sequence[int] = (),
        sample_shape: tuple[int, ...] = (1, 32, 32),
        num_classes: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, number in (("discriminator_turns", discriminator_turns), ("micro_batches", micro_batches)):
            if number < 1:
                raise ValueError(f"{name} is {number}: give at least 1.")
        self.sample_shape, self.num_classes, self.seed = tuple(sample_shape), num_classes, seed
        with torch.random.fork_rng(devices=[]):  # equal seeds give equal weights, whatever ran before
            torch.manual_seed(seed)
            self.generator = make_network("generator", generator, self.sample_shape, num_classes)
            self.discriminator = make_network("discriminator", discriminator, self.sample_shape, num_classes)
        sketched = torch.empty(0).is_meta  # of weights without values, with which nothing can be computed
        if not sketched:
            check_networks(self.generator, self.discriminator, self.sample_shape, num_classes)
        if update not in get_args(Update):
            raise ValueError(f"update is {update!r}: give {' or '.join(get_args(Update))}.")
        if update == "one_stage" and not sketched:
            check_one_stage(loss, self.discriminator, self.sample_shape, num_classes)
        self.stage = OneStage() if update == "one_stage" else None
        self.compile_mode = compile
        if len(self.sample_shape) == 3:  # images: the memory layout in which convolutions run fastest
            self.to(memory_format=torch.channels_last)
        self.ema = EMA(self.generator, ema_half_life, ema_ramp_up)
        self.averages = nn.ModuleDict({str(n): EMA(self.generator, n, ema_ramp_up) for n in more_half_lives})
        self.loss, self.augmentation = loss, augmentation
        self.penalties, self.generator_penalties = tuple(penalties), tuple(generator_penalties)
        self.memories = nn.ModuleList(  # what penalties remember is in the checkpoint
            penalty for penalty in (*penalties, *generator_penalties) if isinstance(penalty, nn.Module)
        )
        self.optimizer_factories = (generator_optimizer, discriminator_optimizer)
        self.discriminator_turns, self.learning_rate = discriminator_turns, learning_rate
        self.micro_batches, self.clip_grad_norm = micro_batches, clip_grad_norm

    def training_step(self, batch: Batch, batch_idx: int) -> Record:
        """A turn of the discriminator and, every `discriminator_turns`-th time, one of the generator."""
        real, labels = batch
        seed_device(self.device, "networks", self.seed, self.turns, self.global_rank)  # dropout and kin
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
        record = self.descend("discriminator", optimizer, objective, (real, labels))
        if self.augmentation is not None:
            self.augmentation.adapt(self.turns + 1, len(real) * self.trainer.world_size)
            record |= self.augmentation.told()
        return record

    def generator_turn(self, real: Tensor, labels: Tensor | None) -> Record:
        """The generator learns from the feedback: the discriminator's error, carried back into it."""
        record = self.descend("generator", self.generator_optimizer, self.generator_objective, (real, labels))
        self.images_per_iteration = len(real) * self.trainer.world_size * self.discriminator_turns
        self.update_averages(images=self.images_per_iteration)
        return record

    def discriminator_objective(
        self, real: Tensor, labels: Tensor | None, noise: Noise
    ) -> tuple[Tensor, Record]:
        """What the discriminator minimises: the mean loss of real and fake samples, and the penalties due."""
        due = [penalty for penalty in self.penalties if self.turns % penalty.every == 0]
        sides = {side for penalty in due for side in penalty.differentiates}
        drawn = self.see(self.draw(noise, labels), noise, "fake")
        real = self.see(real, noise, "real").detach().requires_grad_("real" in sides)
        fake = drawn.detach().requires_grad_("fake" in sides or drawn.requires_grad)
        with uncompiled(needed=bool(self.compile_mode and sides)):
            objective, real_logits, fake_logits = self.tell_apart(real, fake, labels)
        self.overhear(drawn, fake, objective, sides, real_logits=real_logits, fake_logits=fake_logits)
        record = {"loss/discriminator": objective, "logits/real": real_logits, "logits/fake": fake_logits}
        passed = {"real": real, "fake": fake, "real_logits": real_logits, "fake_logits": fake_logits}
        for penalty, value in zip(due, self.penalise(due, labels, noise, **passed), strict=True):
            objective = objective + value_at(penalty.weight, self.images_seen) * penalty.every * value
            record[f"penalty/{penalty.name}"] = value
        return objective, record

    def generator_objective(self, real: Tensor, labels: Tensor | None, noise: Noise) -> tuple[Tensor, Record]:
        """What the generator minimises: the mean loss of what it makes of `noise`, and the penalties due."""
        if self.stage is not None:
            objective, value = self.stage.objective(self.loss, self.micro_batches)
            return objective, {"loss/generator": value}
        latents, draws = self.latents(noise), self.draws(noise, "fake")
        real = self.see(real, noise, "real") if self.loss.pairs else real
        objective = self.fool(latents, real, labels, draws)
        record = {"loss/generator": objective}
        turn = self.turns // self.discriminator_turns
        for penalty in (penalty for penalty in self.generator_penalties if turn % penalty.every == 0):
            drawn = noise.stream(penalty.name)
            with in_full_range(self.device):
                value = penalty(self.generator, latents=latents, labels=labels, noise=drawn).mean()
            objective = objective + value_at(penalty.weight, self.images_seen) * penalty.every * value
            record[f"penalty/{penalty.name}"] = value
        return objective, record

    def penalise(
        self, due: Sequence[Penalty], labels: Tensor | None, noise: Noise, *, real: Tensor, fake: Tensor,
        real_logits: Tensor, fake_logits: Tensor,
    ) -> list[Tensor]:  # fmt: skip
        """The mean of each penalty due, on the loss's own pass."""
        with in_full_range(self.device) as anew:  # under float16 alone they need a pass of their own
            if due and anew:
                real, fake = (one.detach().float().requires_grad_(one.requires_grad) for one in (real, fake))
                real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
            values = [
                penalty(
                    self.discriminator, real=real, fake=fake, real_logits=real_logits,
                    fake_logits=fake_logits, labels=labels, noise=noise.stream(penalty.name),
                    **self.neighbours(penalty, noise, labels),
                ).mean()
                for penalty in due
            ]  # fmt: skip
        if self.shares_its_pass:
            for penalty, value in zip(due, values, strict=True):
                check_penalty(penalty, value, fake)
        return values

    def overhear(
        self, drawn: Tensor, fake: Tensor, objective: Tensor, sides: set[str], *, real_logits: Tensor,
        fake_logits: Tensor,
    ) -> None:  # fmt: skip
        """What others need of the discriminator's pass: the augmentation, and the turn that shares it."""
        if self.augmentation is not None:
            self.augmentation.watch(real_logits)
        if self.stage is not None and self.shares_its_pass:
            penalised = objective if "fake" in sides else None
            self.stage.keep(drawn, fake, penalised, real_logits=real_logits, fake_logits=fake_logits)

    @property
    def shares_its_pass(self) -> bool:
        """Whether the discriminator's pass of this turn serves the generator's turn too."""
        return self.stage is not None and (self.turns + 1) % self.discriminator_turns == 0

    def see(self, samples: Tensor, noise: Noise, side: str) -> Tensor:
        """Samples of a side, "real" or "fake", as the discriminator sees them."""
        draws = self.draws(noise, side)
        return samples if self.augmentation is None or draws is None else self.augmentation(samples, draws)

    def draws(self, noise: Noise, side: str) -> Tensor | None:
        """What the augmentation of this turn's samples depends on."""
        return None if self.augmentation is None else noise.stream(side).uniform(self.augmentation.draws)

    def neighbours(self, penalty: Penalty, noise: Noise, labels: Tensor | None) -> dict[str, Tensor]:
        """For a penalty that asks for them: samples of latents near those of this turn's fakes."""
        if not penalty.neighbourhood:
            return {}
        latents = self.latents(noise)
        step = self.latents(noise.stream("near"))
        with torch.no_grad():
            near = self.imagine(latents + penalty.neighbourhood * step, labels)
            return {"near": self.see(near, noise, "fake")}

    def draw(self, noise: Noise, labels: Tensor | None) -> Tensor:
        """Fakes for the discriminator: without the generator's graph, unless one stage serves both turns."""
        latents = self.latents(noise)
        with learning(self.generator) if self.shares_its_pass else torch.no_grad():
            return self.imagine(latents, labels)

    def imagine(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """The generator's samples."""
        return self.generator(latents, labels)

    def tell_apart(self, real: Tensor, fake: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The discriminator's loss, and its logits of real and fake samples."""
        real_logits, fake_logits = self.discriminator(real, labels), self.discriminator(fake, labels)
        return self.loss.discriminator(real=real_logits, fake=fake_logits).mean(), real_logits, fake_logits

    def fool(
        self, latents: Tensor, real: Tensor, labels: Tensor | None, draws: Tensor | None = None
    ) -> Tensor:
        """The generator's loss; `draws` tell how its samples are changed for the discriminator."""
        fake = self.generator(latents, labels)
        if self.augmentation is not None and draws is not None:
            fake = self.augmentation(fake, draws)
        fake_logits = self.discriminator(fake, labels)
        real_logits = self.discriminator(real, labels) if self.loss.pairs else None
        return self.loss.generator(real=real_logits, fake=fake_logits).mean()

    def latents(self, noise: Noise) -> Tensor:
        """Latents [count, latent_dim] ~ N(0, 1)."""
        return noise.normal(self.generator.latent_dim)  # type: ignore[arg-type]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """What the discriminator makes of real samples; the realism callback adds the distances."""
        real, labels = batch
        self.log("logits/real", self.discriminator(real, labels).float().mean(), batch_size=len(real))

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        *,
        trust: str | Sequence[str] = (),
        **arguments: Any,
    ) -> GAN:
        """The GAN of a checkpoint, rebuilt from what the checkpoint says of litgan's and torch's classes.

        Args:
            checkpoint_path: a file that `litgan fit` or a Lightning Trainer saved.
            map_location: device to put it on; None for the CPU.
            trust: modules whose classes it may name besides; they are imported, which runs their code.
            **arguments: the constructor's, where the run was not started from a recipe.

        Raises:
            ValueError: if the file cannot be read, holds another architecture, or names another class.
        """
        checkpoint = checkpoints.read(checkpoint_path, map_location, together=True)
        builder = Builder(trust, checkpoint_path)
        if arguments:
            gan = cls(**arguments)
        else:
            gan = checkpoints.build_fitting(
                checkpoint, lambda: checkpoints.build_gan(checkpoint, cls, builder)
            )
        gan.on_load_checkpoint(checkpoint)
        gan.load_state_dict(checkpoint["state_dict"])
        gan.recipe = checkpoint["litgan"].get("recipe", {})
        return gan.to(map_location or "cpu").eval()


# Lightning inspects it in every iteration, and finds what is kept here in a third of the time.
GAN.training_step.__signature__ = signature(GAN.training_step)
