"""Checks before training, each with one sentence: networks, data, options of the Trainer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan.condition import Condition, describe, num_classes, probe
from litgan.files import warn
from litgan.rebuild import first_line
from litgan.schedules import largest

OFFERED = ("latent_dim", "uses_batch_statistics", "logit_counts", "last_layer", "auxiliary_loss")
TINY_FACTOR = 1e-2  # of learning rates: smaller numbers are taken for the rates themselves


class OneInput(nn.Module):
    """A network whose forward pass takes one tensor, as one that takes two: it gets one of them."""

    def __init__(self, network: nn.Module, second: bool = False) -> None:
        super().__init__()
        self.network, self.second = network, second

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name) if name in OFFERED else super().__getattr__(name)

    def forward(self, first: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.network(condition if self.second else first)


def make_networks(
    generator: Callable[..., Any], discriminator: Callable[..., Any], sample_shape: tuple[int, ...],
    condition: Condition, latent_dim: int | None = None,
) -> tuple[nn.Module, nn.Module]:  # fmt: skip
    """Both networks, checked: ready modules, or made by factories of the data's shape and condition.

    A module may take one tensor: the samples or the latents; a generator without latents the condition,
    where that is a tensor.

    Raises ValueError: one sentence that names the network, if it cannot be made so or does not fit the data.
    """
    networks = []
    for role, given in (("generator", generator), ("discriminator", discriminator)):
        network = given if isinstance(given, nn.Module) else _made(role, given, sample_shape, condition)
        try:
            inspect.signature(network.forward).bind(None, None)
        except TypeError:
            has_latents = latent_dim or getattr(network, "latent_dim", 0)
            translates = role == "generator" and isinstance(condition, tuple) and not has_latents
            network = OneInput(network, second=translates)
            if translates:
                network.latent_dim = 0  # type: ignore[assignment]
        networks.append(network)
    if latent_dim is not None:
        networks[0].latent_dim = latent_dim  # type: ignore[assignment]
    if not torch.empty(0).is_meta:  # on the meta device weights have no values: nothing to try out
        check_networks(networks[0], networks[1], sample_shape, condition)
    return networks[0], networks[1]


def _made(
    role: str, factory: Callable[..., Any], sample_shape: tuple[int, ...], condition: Condition
) -> nn.Module:
    try:
        network = factory(sample_shape, condition)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"The {role} cannot be made from (sample_shape, condition) = {sample_shape, condition} "
            f"({first_line(error)}): give a module, or a class whose constructor takes these two first."
        ) from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ValueError(f"The {role} is a {kind}: give a class of networks (nn.Module).")
    return network


def check_networks(
    generator: nn.Module, discriminator: nn.Module, sample_shape: tuple[int, ...], condition: Condition
) -> None:
    """Passes one sample through both networks.

    Raises ValueError: one sentence that names the network and what does not fit.
    """
    for network in (generator, discriminator):
        ignores = isinstance(network, OneInput) and not network.second
        if ignores and (num_classes(condition) or (condition and network is generator)):
            raise ValueError(
                f"{_name(network)}.forward takes no condition, but there are {describe(condition)}: "
                "give it a second argument, or leave out the condition."
            )
    latent_dim = getattr(generator, "latent_dim", None)
    if not isinstance(latent_dim, int):
        raise ValueError(
            f"{_name(generator)} has no integer attribute latent_dim: add one, or give latent_dim."
        )
    device = next(generator.parameters(), torch.empty(0)).device
    given = probe(condition, 1, device)
    latents = torch.zeros(1, latent_dim, device=device)
    samples = _forward(generator, latents, given, f"latents and {describe(condition)}")
    if samples.shape[1:] != sample_shape:
        raise ValueError(
            f"{_name(generator)} makes samples of shape {tuple(samples.shape[1:])} but the data's "
            f"have {sample_shape}: change the network's widths or the data's resolution and channels."
        )
    wanted = f"samples of shape {sample_shape} and {describe(condition)}"
    logits = _forward(discriminator, torch.zeros(1, *sample_shape, device=device), given, wanted)
    if logits.ndim != 2:
        raise ValueError(
            f"{_name(discriminator)} returns logits of shape {tuple(logits.shape)}: make it [B, K]."
        )


@torch.no_grad()
def _forward(network: nn.Module, first: Tensor, condition: Tensor | None, wanted: str) -> Tensor:
    training = network.training
    try:
        return network.eval()(first, condition)
    except (RuntimeError, IndexError, TypeError) as error:
        raise ValueError(f"{_name(network)} does not fit {wanted}: {first_line(error)}.") from error
    finally:
        network.train(training)


def _name(network: nn.Module) -> str:
    return type(network.network if isinstance(network, OneInput) else network).__name__


def make_optimizers(
    factories: Iterable[Callable[[Iterable[nn.Parameter]], Optimizer]], networks: Iterable[nn.Module]
) -> list[Optimizer]:
    """An optimizer for each network, of the parameters that are trained.

    Raises ValueError: one sentence that names the network, if an option is out of its range.
    """
    optimizers = []
    for role, make, network in zip(("generator", "discriminator"), factories, networks, strict=True):
        try:
            optimizers.append(make(weight for weight in network.parameters() if weight.requires_grad))
        except ValueError as error:
            raise ValueError(
                f"The {role}'s optimizer cannot be made ({first_line(error)}): correct {role}_optimizer."
            ) from error
    return optimizers


def check_fit(gan: Any) -> None:
    """Compares a GAN with the Trainer that is about to fit it; warns of a tiny factor of learning rates.

    Raises ValueError: one sentence, if data, limits of gradients, learning rates or optimizers do not fit.
    """
    data = gan.trainer.datamodule
    check_sample_shape(getattr(data, "sample_shape", gan.sample_shape), gan.sample_shape)
    check_clipping(gan.gradient_clip_val, gan)
    for optimizer in gan.trainer.optimizers:
        for group in optimizer.param_groups:
            largest(f"The learning rate of {type(optimizer).__name__}", group["lr"])
    if (factor := largest("lr_schedule", gan.lr_schedule)) < TINY_FACTOR:
        warn(
            f"lr_schedule is at most {factor:g}, and it is a factor of the learning rates, none itself: give "
            "a rate as generator_optimizer.lr and discriminator_optimizer.lr."
        )
    for config in gan.trainer.lr_scheduler_configs:
        raise ValueError(
            f"configure_optimizers returns a {type(config.scheduler).__name__}, which a GAN does not step: "
            "return optimizers alone and give lr_schedule, a factor that depends on images_seen."
        )


def check_sample_shape(of_data: tuple[int, ...], of_gan: tuple[int, ...]) -> None:
    """Raises ValueError if the data's samples have another shape than the GAN's."""
    if tuple(of_data) != of_gan:
        raise ValueError(
            f"The data's samples have shape {tuple(of_data)}, this GAN makes {of_gan}: "
            "build the GAN with the data's sample_shape, or change the data's resolution or channels."
        )


def check_clipping(limits: float | dict[str, float] | None, module: nn.Module) -> None:
    """Raises ValueError if a limit is not positive, or names no network with trainable parameters."""
    names = [
        name for name, part in module.named_children() if any(w.requires_grad for w in part.parameters())
    ]
    for name, limit in limits.items() if isinstance(limits, dict) else [(names[0], limits)]:
        if limit is not None and not limit > 0:
            raise ValueError(
                f"gradient_clip_val is {limit}: give a positive norm, or leave it out for no limit."
            )
        if name not in names:
            raise ValueError(f"gradient_clip_val names {name}: give limits for {' and '.join(names)}.")


def check_trainer(trainer: Trainer) -> None:
    """Raises ValueError for options of the Trainer that cannot work for several networks."""
    if str(trainer.precision).endswith("-true") and trainer.precision != "32-true":
        raise ValueError(
            f"trainer.precision is {trainer.precision}, but latents and averages are float32: "
            "give 32-true, bf16-mixed or 16-mixed."
        )
    if trainer.accumulate_grad_batches != 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}, but a GAN's "
            "networks are updated one after the other: leave it out and give model.micro_batches."
        )
    if trainer.gradient_clip_val:
        raise ValueError(
            f"trainer.gradient_clip_val is {trainer.gradient_clip_val}, but each network has its own "
            "gradient: leave it out and give model.gradient_clip_val."
        )
    strategy = trainer.strategy
    if (
        trainer.world_size > 1
        and isinstance(strategy, DDPStrategy)
        and not hasattr(strategy, "reducers")  # AdversarialDDPStrategy has one for each network
        and not strategy._ddp_kwargs.get("find_unused_parameters")
    ):
        raise ValueError(
            "Lightning's ddp waits for gradients of all networks, of which only one is updated at a time: "
            "give trainer.strategy adversarial_ddp."
        )


class NoEmptyData(Callback):
    """Refuses a training loader without batches, with which Lightning ends without a word or never.

    Raises ValueError: two epochs, one after the other, or a whole fit had no batch.
    """

    def __init__(self) -> None:
        self.batches, self.empty_epochs = 0, 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.batches += 1

    def on_train_epoch_end(self, trainer: Trainer, gan: LightningModule) -> None:
        self.empty_epochs = 0 if self.batches else self.empty_epochs + 1  # a resumed epoch may be at its end
        self.batches = 0
        if self.empty_epochs > 1:
            self._refuse()

    def on_fit_end(self, trainer: Trainer, gan: LightningModule) -> None:
        if trainer.limit_train_batches and trainer.num_training_batches == 0:
            self._refuse()

    def _refuse(self) -> None:
        raise ValueError("The training loader gives no batch: give it data of at least one batch.")
