"""The machinery under the game: turns, optimizers, the clock, hooks, and what a checkpoint keeps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeAlias

import torch
from lightning.pytorch import Callback
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan import checkpoints, tracking
from litgan.accumulation import Limits, check_limits, clip, refuse_trainer_options, split, unreduced
from litgan.compilation import compile_turns, restore
from litgan.finished import Finished
from litgan.listening import backward_is_plain
from litgan.noise import Noise
from litgan.one_stage import OneStage
from litgan.penalties import Penalty
from litgan.precision import scale_each_adversary, scales
from litgan.schedules import Schedule, value_at

Record: TypeAlias = dict[str, Tensor]  # what a turn tells of itself, on its device; means are logged
Batch: TypeAlias = tuple[Tensor, Tensor | None]  # real samples, labels or None
Objective: TypeAlias = Callable[[Tensor, Tensor | None, Noise], tuple[Tensor, Record]]
OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]


class Adversaries(Finished):
    """Two networks that take turns, each stepped by its own optimizer down its own objective.

    `litgan.GAN` says what the turns are; this class takes them. Time is counted in `images_seen`: real
    samples shown to the discriminator, over all ranks, since the run began.
    """

    discriminator: nn.Module
    optimizer_factories: tuple[OptimizerFactory, OptimizerFactory]
    learning_rate: float | Schedule
    discriminator_turns: int
    micro_batches: int
    clip_grad_norm: Limits
    sample_shape: tuple[int, ...]
    seed: int
    stage: OneStage | None
    penalties: tuple[Penalty, ...]
    compile_mode: bool | str

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.turn_of = ""  # whose turn it is
        self.backward_is_plain = False  # whether Lightning adds nothing to backward passes
        self.images_seen = 0  # the clock
        self.turns = 0  # turns of the discriminator since the run began
        self.recipe: dict[str, Any] = {}  # plain data from which a checkpoint alone rebuilds the run
        self.images_per_iteration = 0
        self.told: dict[str, Tensor | float] = {}  # what was last told: lazy penalties rarely speak
        self.latest: dict[str, float] = {}  # what was last recorded, for the progress bar
        self.followers: list[nn.Module] = []  # parts that change with the clock
        self.seconds_aside = 0.0  # spent on pictures, metrics and checkpoints, not on training
        self.ready_since = 0.0  # seconds of training when the next batch could have been taken

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
        with self.turn(optimizer):
            for part, last in split(*batch, self.noise(name, len(batch[0])), self.micro_batches):
                value, record = objective(*part)
                if value.device.type == "cpu" and not math.isfinite(value.item()):
                    sentence = tracking.not_finite(f"loss/{name}", value.item(), self.images_seen)
                    raise FloatingPointError(sentence)
                if not records:
                    optimizer.zero_grad()
                with nullcontext() if last else unreduced(self.trainer):
                    self.manual_backward(value if self.micro_batches == 1 else value / self.micro_batches)
                records.append({key: self.kept(value) for key, value in record.items()})
            if name == "generator":
                optimizer.step()
            else:
                self.trainer.strategy.optimizer_step(optimizer.optimizer, lambda: None)
        if len(records) == 1:
            return records[0]
        return {key: torch.stack([record[key].float().mean() for record in records]) for key in records[0]}

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Lightning's, or autograd's own where nobody could tell the difference."""
        if self.backward_is_plain:
            loss.backward(*args, **kwargs)
        else:
            super().manual_backward(loss, *args, **kwargs)

    def kept(self, value: Tensor) -> Tensor:
        """A value until it is logged, whose mean is taken then; or now, where graphs reuse their memory."""
        return value.detach().float().mean() if self.compile_mode else value.detach()

    @contextmanager
    def turn(self, optimizer: LightningOptimizer) -> Iterator[None]:
        """In here no weights learn but those of `optimizer`: the gradient passes through the others only."""
        own = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        groups = [group for other in self.trainer.optimizers for group in other.param_groups]
        frozen = [
            weight for group in groups for weight in group["params"]
            if weight.requires_grad and id(weight) not in own
        ]  # fmt: skip
        for weight in frozen:
            weight.requires_grad = False
        try:
            yield
        finally:
            for weight in frozen:
                weight.requires_grad = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # Lightning's, 50 times an iteration: not worth asking what it is
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def noise(self, name: str, count: int) -> Noise:
        """The randomness of this turn for the `count` samples of this rank."""
        return Noise(self.seed, self.turns, self.global_rank * count, count, name, self.device)

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
        scale_each_adversary(self.trainer, shared=self.stage is not None)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        clip(optimizer, self.clip_grad_norm, self.turn_of)

    def on_fit_start(self) -> None:
        learning = [
            name for name, part in self.named_children() if any(w.requires_grad for w in part.parameters())
        ]
        check_limits(self.clip_grad_norm, learning)
        data = getattr(self.trainer, "datamodule", None)
        for penalty in self.penalties:
            penalty.settle(self.sample_shape, getattr(data, "batch_size", 0))
        data_shape = getattr(data, "sample_shape", self.sample_shape)
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

        self.backward_is_plain = backward_is_plain(self.trainer)
        self.followers = [part for part in self.modules() if hasattr(part, "follow")]
        if self.stage is not None:
            self.stage.passes.clear()
        if self.compile_mode:
            compile_turns(self, self.compile_mode)
        self.ready_since = time.perf_counter() - self.seconds_aside

    def tell_time(self, followers: Iterable[nn.Module]) -> None:
        """Parts of networks that change with the clock (a temperature, a ramp) have `follow(images_seen)`."""
        for part in followers:
            part.follow(self.images_seen)  # type: ignore[operator]

    def teardown(self, stage: str) -> None:
        self.backward_is_plain = False
        restore(self)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.tell_time(self.followers)
        if self.compile_mode:  # CUDA graphs lend fakes and gradients until this is said again
            torch.compiler.cudagraph_mark_step_begin()

    def on_train_batch_end(self, outputs: Record, batch: Any, batch_idx: int) -> None:
        if self.iteration_ends and self.trainer.global_step % self.trainer.log_every_n_steps == 0:
            tracking.record(self.trainer, {**self.told, **scales(self.trainer)})
        self.ready_since = time.perf_counter() - self.seconds_aside

    @property
    def iteration_ends(self) -> bool:
        """Whether the last turn was the last one of its iteration."""
        return self.turns % self.discriminator_turns == 0

    def passes(self, every: int) -> bool:
        """Whether the iteration that just ended passed a multiple of `every` images; never for 0."""
        if not every or not self.iteration_ends:
            return False
        return self.images_seen // every > (self.images_seen - self.images_per_iteration) // every

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["litgan"] = {
            "images_seen": self.images_seen, "turns": self.turns, "recipe": self.recipe,
            "told": tracking.averaged(self.trainer, self.told),
        }  # fmt: skip

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoints.check_architecture(checkpoint, self)
        self.images_seen, self.turns = checkpoints.clock(checkpoint)
        self.told = dict(checkpoint["litgan"].get("told", {}))  # which earlier checkpoints lack
        self.tell_time([part for part in self.modules() if hasattr(part, "follow")])
