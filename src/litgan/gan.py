"""GAN: a generator and a discriminator that learn by backpropagation through one another.

`training_step` and `update` show what happens in which order; the two losses follow. Lightning calls
`training_step` once per batch: one update of the discriminator. Every `discriminator_steps`-th call also
updates the generator. These calls together are one *iteration*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan import checkpoints, updates
from litgan.adversarial_weight import check_generator_loss, present_weight, weigh
from litgan.augment import Augmentation
from litgan.axis import ImagesAxis, publish
from litgan.checks import NoEmptyData, check_fit, check_trainer, make_networks, make_optimizers
from litgan.compilation import compile_networks, uncompile_networks
from litgan.condition import Condition, as_condition, choose_conditions, num_classes
from litgan.ema import EMA
from litgan.fine_tuning import Freeze, SameData
from litgan.losses import AdversarialLoss
from litgan.noise import Noise, seed_device
from litgan.options import check_counts
from litgan.penalties import Context, GeneratorPenalty, Penalty, Reconstruction, add_terms, due_terms
from litgan.precision import per_network_loss_scale
from litgan.resuming import RecipeOptimizers, check_training_state
from litgan.sampling import Sampler, averaged_generator, sampling_with
from litgan.schedules import Schedule, value_at
from litgan.updates import Batch, Logs, LossFunction, OptimizerFactory


class GAN(LightningModule):
    """Alternating updates of a discriminator and a generator, over any samples: images, sound, music, text.

    Time is counted in `images_seen`: real samples of all batches, over all ranks, since the run began.
    Subclass it for another game: override `generate`, `discriminator_loss` or `generator_loss`. One more
    network is an attribute with an optimizer in `configure_optimizers`; `training_step` calls `update`.
    Raises ValueError if a number of steps or parts is below 1, or if a network does not fit the data.

    Args:
        generator: a module (latents, condition) -> samples; or called with (sample_shape, condition) it
            returns one. It may take one tensor: the latents or, where its latent_dim is 0, the condition.
        discriminator: likewise a module (samples, condition) -> logits [B, K].
        loss: of real and fake logits, for both networks.
        generator_optimizer: called with the generator's parameters.
        discriminator_optimizer: called with the discriminator's parameters.
        penalties: regularizers in the discriminator's loss.
        generator_penalties: regularizers in the generator's loss.
        reconstruction: further terms of the generator's loss, which compare a fake with its real sample.
        adversarial_weight: factor of the adversarial loss in the generator's; with 0 it is not computed.
        discriminator_start: images seen before which the discriminator takes no step and has no weight.
        augment: differentiable augmentation of all that the discriminator gets, real and fake.
        discriminator_steps: updates of the discriminator, each on a fresh batch, per update of the generator.
        micro_batches: number of equal parts in which an update takes its batch, to save memory.
        compile: run the networks through torch.compile; a string gives its mode, e.g. "reduce-overhead".
        gradient_clip_val: largest gradient norm, one for every network or {network name: norm}.
        lr_schedule: factor on every learning rate, e.g. a `litgan.schedules.WarmUp`.
        ema_halflife: of the averaged generator, in images.
        ema_rampup: early on the half-life is at most this fraction of `images_seen`; 0 for no bound.
        extra_ema_halflives: of further averages to choose from after training (Karras et al. 2024, EDM2).
        sample_shape: of one sample, without the batch; the command line takes it from the data.
        condition: of the networks: 0, the number of classes, or the shape of a tensor; as `sample_shape`.
        freeze: parts of the networks that are not trained, e.g. ["discriminator.stages.0"].
        latent_dim: length of the latents, for a generator without an attribute of this name.
        seed: of weights, latents and every other draw.
    """

    images_seen = images_per_iteration = 0  # real samples over all ranks; those of the present iteration
    discriminator_updates = 0  # calls of `training_step`, also before `discriminator_start`
    updating = ""  # name of the network that is being updated
    seconds_excluded = 0.0  # spent on pictures, metrics and checkpoints, not on training
    waiting_since = 0.0  # time at which the wait for the next batch began

    def __init__(
        self,
        generator: Callable[[tuple[int, ...], Condition], nn.Module],
        discriminator: Callable[[tuple[int, ...], Condition], nn.Module],
        loss: AdversarialLoss,
        generator_optimizer: OptimizerFactory,
        discriminator_optimizer: OptimizerFactory,
        penalties: Penalty | Sequence[Penalty] = (),
        generator_penalties: GeneratorPenalty | Sequence[GeneratorPenalty] = (),
        reconstruction: Reconstruction | Sequence[Reconstruction] = (),
        adversarial_weight: float | Schedule = 1.0,
        discriminator_start: int = 0,
        augment: Augmentation | None = None,
        discriminator_steps: int = 1,
        micro_batches: int = 1,
        compile: bool | str = False,
        gradient_clip_val: float | dict[str, float] | None = None,
        lr_schedule: float | Schedule = 1.0,
        ema_halflife: float | Schedule = 10_000,
        ema_rampup: float = 0.05,
        extra_ema_halflives: int | Sequence[int] = (),
        sample_shape: tuple[int, ...] = (1, 32, 32),
        condition: int | tuple[int, ...] = 0,
        freeze: str | Sequence[str] = (),
        latent_dim: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        check_counts(discriminator_steps=discriminator_steps, micro_batches=micro_batches)
        self.sample_shape, self.condition, self.seed = tuple(sample_shape), as_condition(condition), seed
        self.num_classes = num_classes(self.condition)
        with torch.random.fork_rng(devices=[]):  # equal seeds give equal weights, whatever ran before
            torch.manual_seed(seed)
            networks = make_networks(generator, discriminator, self.sample_shape, self.condition, latent_dim)
        self.generator, self.discriminator = networks
        if len(self.sample_shape) == 3:  # images: the memory layout in which convolutions run fastest
            self.to(memory_format=torch.channels_last)
        self.ema = EMA(self.generator, ema_halflife, ema_rampup)
        halflives = updates.as_tuple(extra_ema_halflives)
        self.extra_emas = nn.ModuleDict({str(one): EMA(self.generator, one, ema_rampup) for one in halflives})
        # `logit_counts` is there where one module holds several discriminators: their losses add up.
        self.loss = loss.sum_of_means(getattr(self.discriminator, "logit_counts", ()))
        self.augment, self.frozen_parts = augment, updates.as_tuple(freeze)
        self.penalties = updates.as_tuple(penalties)
        self.generator_penalties = updates.as_tuple(generator_penalties)
        self.reconstruction = updates.as_tuple(reconstruction)
        self.adversarial_weight, self.discriminator_start = adversarial_weight, discriminator_start
        terms = (*self.penalties, *self.generator_penalties, *self.reconstruction)
        # Registered, so that their state is in the checkpoint.
        self.stateful_penalties = nn.ModuleList(each for each in terms if isinstance(each, nn.Module))
        self.optimizer_factories = (generator_optimizer, discriminator_optimizer)
        self.discriminator_steps, self.micro_batches = discriminator_steps, micro_batches
        self.compile_mode, self.gradient_clip_val, self.lr_schedule = compile, gradient_clip_val, lr_schedule
        self.recipe: dict[str, Any] = {}  # plain data, from which a checkpoint alone rebuilds GAN and data

        self.last_logs: dict[str, Tensor | float] = {}  # last value of each key: not all are in each update
        self.logged: dict[str, float] = {}  # last value of each key that was sent to the loggers

    def configure_optimizers(self) -> list[Optimizer]:
        return make_optimizers(self.optimizer_factories, (self.generator, self.discriminator))

    # ------------------------------------------------------------------ one iteration

    def training_step(self, batch: Batch, batch_idx: int) -> Logs:
        real, condition = updates.unpack(batch, self.condition)
        generator_optimizer, discriminator_optimizer = self.optimizers()[:2]  # type: ignore[index]
        # Seeds dropout and other random layers inside the networks.
        seed_device(self.device, "networks", self.seed, self.discriminator_updates, self.global_rank)

        # The discriminator learns to tell real from fake.
        images, logs = len(real) * self.trainer.world_size, dict[str, Tensor]()
        if self.images_seen >= self.discriminator_start:
            logs = self.update(
                "discriminator", discriminator_optimizer, self.discriminator_loss, real, condition
            )
            if self.augment is not None:
                self.augment.update_p(self.discriminator_updates + 1, images)
                logs |= self.augment.logs()
        self.images_seen += images
        begins = self.discriminator_updates % self.discriminator_steps == 0  # a new iteration
        self.images_per_iteration = images + (0 if begins else self.images_per_iteration)

        # Every discriminator_steps-th time the generator learns, from the feedback: the gradient of its loss
        # that comes back through the discriminator. Its fakes are for the conditions of this same batch.
        if (self.discriminator_updates + 1) % self.discriminator_steps == 0:
            logs |= self.update("generator", generator_optimizer, self.generator_loss, real, condition)
            for ema in (self.ema, *self.extra_emas.values()):
                ema.update(self.generator, self.images_seen, self.images_per_iteration)  # type: ignore[operator]

        self.discriminator_updates += 1
        self.last_logs |= logs  # ImagesAxis sends them to the loggers, every log_every_n_steps iterations
        return logs

    def update(
        self, name: str, optimizer: LightningOptimizer, loss_function: LossFunction, real: Tensor,
        condition: Tensor | None,
    ) -> Logs:  # fmt: skip
        """One step of the network `name`. The others are frozen: gradients only pass through them."""
        self.updating = name
        for group in optimizer.param_groups:
            # initial_lr: the one of the recipe, which RecipeOptimizers notes at the start.
            group["lr"] = group["initial_lr"] * value_at(self.lr_schedule, self.images_seen)
        self.last_logs[f"lr/{name}"] = optimizer.param_groups[0]["lr"]
        optimizer.zero_grad()

        has_hooks = any(network._forward_hooks for network in self.children())  # compiled code calls none
        no_sync = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)  # AdversarialDDPStrategy
        explained = updates.explain_memory(name, len(real), self.micro_batches)
        frozen = updates.frozen(self.trainer.optimizers, but=optimizer.optimizer)  # all other networks
        with frozen, self.eager(has_hooks), explained:
            parts: list[Logs] = []
            for rows in updates.split(len(real), self.micro_batches):
                first, size = self.global_rank * len(real) + rows.start, rows.stop - rows.start
                noise = Noise(self.seed, self.discriminator_updates, first, size, name, self.device)
                loss, logs = loss_function(real[rows], None if condition is None else condition[rows], noise)
                if loss.device.type == "cpu":  # reading it from a GPU would wait: there log_scalars checks it
                    updates.check_finite(f"loss/{name}", loss.item(), self.images_seen, real)
                # Here ranks meet: the backward pass of the last part averages what has added up on each.
                with nullcontext() if rows.stop == len(real) else no_sync(), updates.explain_derivatives():
                    self.manual_backward(loss / self.micro_batches)
                parts.append({key: value.detach() for key, value in logs.items()})

            # Both steps call on_before_optimizer_step, which clips. Only the generator's step goes through
            # Lightning's wrapper, which adds 1 to `trainer.global_step`: it and `max_steps` count iterations.
            if name == "generator":
                optimizer.step()
            else:
                self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)

        if len(parts) == 1 and not self.compile_mode:  # CUDA graphs overwrite the logits: keep their means
            return parts[0]
        return {key: torch.stack([part[key].float().mean() for part in parts]) for key in parts[0]}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        updates.clip(optimizer, self.gradient_clip_val, self.updating)

    # ------------------------------------------------------------------ the two losses

    def discriminator_loss(self, real: Tensor, condition: Tensor | None, noise: Noise) -> tuple[Tensor, Logs]:
        """The adversarial loss of real and fake samples, and the penalties that are due."""
        with torch.no_grad():
            fake = self.generate(condition, noise)
        return self.loss_of_samples(condition, noise, real=real, fake=fake)

    def loss_of_samples(
        self, condition: Tensor | None, noise: Noise, *, real: Tensor, fake: Tensor
    ) -> tuple[Tensor, Logs]:
        """The discriminator's loss of samples before augmentation; fakes may require a gradient."""
        due = due_terms(self.penalties, self.discriminator_updates)
        differentiated = {side for penalty in due for side in penalty.differentiates}
        real = real.detach().requires_grad_("real" in differentiated)
        fake.requires_grad_(fake.requires_grad or "fake" in differentiated)

        with self.eager(bool(differentiated)):  # compiled networks have no second derivative
            real_logits = self.discriminator(*self.augmented(real, condition, noise.stream("real")))
            fake_logits = self.discriminator(*self.augmented(fake, condition, noise.stream("fake")))
        if self.augment is not None:
            self.augment.update_statistics(real_logits)
        loss = self.loss.discriminator(real=real_logits, fake=fake_logits).mean()
        logs = {"loss/discriminator": loss, "logits/real": real_logits, "logits/fake": fake_logits}

        with updates.float32_penalties(self.device) as in_float32, self.eager(bool(due)):
            if due and in_float32:  # float16 is too narrow for them: they get a pass of their own
                real, fake = (x.detach().float().requires_grad_(x.requires_grad) for x in (real, fake))
                real_logits = self.discriminator(*self.augmented(real, condition, noise.stream("real")))
                fake_logits = self.discriminator(*self.augmented(fake, condition, noise.stream("fake")))
            context = Context(
                self.generator, self.discriminator, condition, noise, self.augmented,
                real=real, fake=fake, real_logits=real_logits, fake_logits=fake_logits,
            )  # fmt: skip
            return add_terms(loss, logs, due, context, self.images_seen)

    def generator_loss(self, real: Tensor, condition: Tensor | None, noise: Noise) -> tuple[Tensor, Logs]:
        """The reconstruction terms, the adversarial loss of the fakes, and the penalties that are due."""
        fake = self.generate(condition, noise)
        context = Context(
            self.generator, self.discriminator, condition, noise, self.augmented, real=real, fake=fake
        )
        loss, logs = add_terms(fake.new_zeros(()), {}, self.reconstruction, context, self.images_seen)
        if present_weight(self):  # else there is only reconstruction
            fake_logits = self.discriminator(*self.augmented(fake, condition, noise.stream("fake")))
            real_logits = None
            if self.loss.relativistic:  # each fake is compared with a real sample
                real_logits = self.discriminator(*self.augmented(real, condition, noise.stream("real")))
            adversarial = self.loss.generator(real=real_logits, fake=fake_logits).mean()
            loss = loss + weigh(self.adversarial_weight, adversarial, loss, self)

        due = due_terms(self.generator_penalties, self.discriminator_updates // self.discriminator_steps)
        with updates.float32_penalties(self.device), self.eager(bool(due)):
            return add_terms(loss, {**logs, "loss/generator": loss}, due, context, self.images_seen)

    def generate(self, condition: Tensor | None, noise: Noise) -> Tensor:
        """Fake samples [B, *sample_shape] for the condition."""
        return self.generator(noise.normal(self.generator.latent_dim), condition)  # type: ignore[arg-type]

    def augmented(self, samples: Tensor, condition: Tensor | None, noise: Noise) -> Batch:
        """Samples as the discriminator gets them, and their condition, which is moved as they are."""
        if self.augment is None:
            return samples, condition
        return self.augment.pair(samples, condition, noise.uniform(self.augment.num_uniforms))

    def eager(self, needed: bool) -> AbstractContextManager[Any]:
        """Compiled networks run uncompiled in here, if needed: for second derivatives and forward hooks."""
        return torch.compiler.set_stance("force_eager") if needed and self.compile_mode else nullcontext()

    # ------------------------------------------------------------------ sampling

    def sample(
        self, count: int, seed: int = 0, condition: Tensor | Sequence[int] | None = None, *, first: int = 0,
        truncation: float | None = None, ema: bool | int = True,
    ) -> Tensor:  # fmt: skip
        """Samples [count, *sample_shape] in the data's range; sample i follows from (seed, first + i).

        `condition`: theirs, from the first one on, repeated as needed; None takes all classes in turn.
        `truncation`: see `litgan.sampling.Sampler`. `ema`: False takes the weights of the last step, a number
        the average with that half-life. Raises ValueError if one of them does not exist or is not positive.
        """
        noise = Noise(seed, 0, first, count, "sample", self.device)
        generator = Sampler(averaged_generator(self, ema), truncation, noise)
        with torch.no_grad(), sampling_with(self, generator):
            return self.generate(choose_conditions(condition, first, count, self.condition), noise)

    def forward(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        """Samples of the averaged generator, in evaluation mode, for these latents [B, latent_dim]."""
        return Sampler(self.ema.average)(latents, condition)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The discriminator's logits of real samples; the callback `Realism` adds the Fréchet distance."""
        real, condition = updates.unpack(batch, self.condition)
        self.log("logits/real", self.discriminator(real, condition).float().mean(), batch_size=len(real))

    test_step = validation_step

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As many samples as the batch has, for the same conditions."""
        real, condition = updates.unpack(batch, self.condition)
        return self.sample(len(real), condition=condition, first=batch_idx * len(real))

    # ------------------------------------------------------------------ the run

    def configure_callbacks(self) -> list[Callback]:
        """The losses' log; what stays frozen; checks that a resumed run has its own data and optimizers."""
        check_trainer(self.trainer)  # Lightning checks the same next, and its message names no remedy
        return [ImagesAxis(), Freeze(self.frozen_parts), SameData(), RecipeOptimizers(), NoEmptyData()]

    def setup(self, stage: str) -> None:
        per_network_loss_scale(self.trainer)

    def on_fit_start(self) -> None:
        check_fit(self)
        check_generator_loss(self)
        for penalty in self.penalties:
            penalty.setup(self.sample_shape, getattr(self.trainer.datamodule, "batch_size", 0))

    def on_train_start(self) -> None:
        if self.compile_mode:
            compile_networks(self.generator, self.discriminator, mode=self.compile_mode)
        self.waiting_since = time.perf_counter() - self.seconds_excluded

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.step_schedules()
        if self.compile_mode:  # the memory of CUDA graphs may be reused from here on
            torch.compiler.cudagraph_mark_step_begin()

    def on_train_batch_end(self, outputs: Logs, batch: Batch, batch_idx: int) -> None:
        self.waiting_since = time.perf_counter() - self.seconds_excluded  # after the callbacks' hooks

    def teardown(self, stage: str) -> None:
        uncompile_networks(self.generator, self.discriminator)

    def step_schedules(self) -> None:
        """Passes `images_seen` to the parts of networks that depend on it, such as a temperature."""
        for part in self.modules():
            if hasattr(part, "step_schedule"):
                part.step_schedule(self.images_seen)  # type: ignore[operator]

    @property
    def iteration_is_complete(self) -> bool:
        """For callbacks: whether the last `training_step` was the last one of its iteration."""
        return self.discriminator_updates % self.discriminator_steps == 0

    def is_due(self, every: int) -> bool:
        """Whether the iteration that just ended passed a multiple of `every` images; never for 0."""
        before = self.images_seen - self.images_per_iteration
        return every > 0 and self.iteration_is_complete and self.images_seen // every > before // every

    def log_scalars(self, values: Mapping[str, Tensor | float]) -> None:
        """Sends scalars, tensors averaged over ranks, to all loggers; FloatingPointError if a loss is NaN."""
        numbers = updates.average(self.trainer, values)
        updates.check_losses(numbers, self.images_seen)
        self.logged |= numbers
        publish(self.trainer, numbers, self.images_seen)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["litgan"] = checkpoints.state_of(self, updates.average(self.trainer, self.last_logs))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoints.check_architecture(checkpoint, self, self.strict_loading)
        check_training_state(checkpoint, self._trainer)
        checkpoints.restore(self, checkpoint)
        self.step_schedules()

    @classmethod
    def load_from_checkpoint(
        cls, checkpoint_path: str | Path, map_location: Any = None, *, trust: str | Sequence[str] = (),
        strict: bool = True, **arguments: Any,
    ) -> GAN:  # fmt: skip
        """The GAN of a checkpoint on `map_location` (the CPU), in evaluation mode.

        Its recipe may name classes of litgan and torch, and of the modules in `trust`: these are imported,
        which runs their code. `arguments` are the constructor's, for a run without a recipe. Unless `strict`,
        weights may be missing on either side. Raises ValueError if the file cannot be read, holds another
        architecture, or names another class.
        """
        content = checkpoints.read(checkpoint_path, map_location, mapped=True)
        return checkpoints.load_gan(cls, content, checkpoint_path, map_location, trust, strict, arguments)
