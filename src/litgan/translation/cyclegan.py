"""CycleGAN, Zhu et al. 2017: translation between two sets of images of which no pairs are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from litgan.checks import make_networks, make_optimizers
from litgan.condition import Condition
from litgan.ema import EMA
from litgan.gan import GAN, Logs
from litgan.losses import to_float32
from litgan.noise import Noise, derive_seed
from litgan.penalties import Context, Reconstruction
from litgan.sampling import Sampler
from litgan.translation.pool import ImagePool

Factory = Callable[[tuple[int, ...], Condition], nn.Module]


class CycleGAN(GAN):
    """Two generators, inverse to each other, and a discriminator for the images of each.

    The generator G makes samples b of conditions a, the inverse generator F conditions of samples. Rows of a
    batch (real, condition) do not belong together: `litgan.data.Unpaired`. Each update of the discriminator
    or of the generator is followed by the same update of the inverse one, in which samples and conditions
    have changed places. The generator's loss is  adversarial + cycle_weight * (|F(G(a)) - a| + |G(F(b)) - b|)
    + identity_weight * |G(b) - b|  (equations 1 to 3 and section 5.2; means over pixels). The authors' code
    updates both generators at once; that is the only difference.

    Args:
        generator: called with (sample_shape, condition) and, for the inverse one, with (condition,
            sample_shape).
        discriminator: called with (sample_shape, 0) and with (condition, 0): it gets images alone.
        cycle_weight: a number; 10 in the paper.
        identity_weight: a number; 5 in the authors' code. 0 for images of different channels.
        pool_size: number of earlier fakes that the discriminators see again; 50 in the paper, 0 for none.
        options: those of `litgan.GAN`, for both directions.

    Raises:
        ValueError: the condition is not a shape, or the identity cannot be compared.
    """

    def __init__(
        self,
        generator: Factory,
        discriminator: Factory,
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        pool_size: int = 50,
        **options: Any,
    ) -> None:
        alone = partial(of_samples_alone, discriminator)
        super().__init__(generator, alone, **options)
        shape, condition = self.sample_shape, self.condition
        if isinstance(condition, int) or (identity_weight and condition[0] != shape[0]):
            raise ValueError(
                f"CycleGAN translates between samples {shape} and conditions {condition}: give data whose "
                "condition is an image, and identity_weight 0 if it has other channels."
            )
        if isinstance(generator, nn.Module) or isinstance(discriminator, nn.Module):
            raise ValueError("CycleGAN makes two of each network: give classes, not ready modules.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("inverse", self.seed))
            networks = make_networks(generator, alone, condition, shape, options.get("latent_dim"))
        self.inverse_generator, self.inverse_discriminator = networks
        self.inverse_ema = EMA(self.inverse_generator, self.ema.halflife, self.ema.rampup)
        self.inverse_loss = options["loss"].sum_of_means(getattr(networks[1], "logit_counts", ()))
        self.pool, self.inverse_pool = ImagePool(pool_size, shape), ImagePool(pool_size, condition)
        terms = Cycle(self, cycle_weight), Identity(identity_weight)
        self.reconstruction = (*self.reconstruction, *(term for term in terms if term.weight))

    def configure_optimizers(self) -> list[Optimizer]:
        inverse = (self.inverse_generator, self.inverse_discriminator)
        return [*super().configure_optimizers(), *make_optimizers(self.optimizer_factories, inverse)]

    def update(self, name: str, optimizer: Any, loss_function: Any, real: Tensor, condition: Any) -> Logs:
        logs = super().update(name, optimizer, loss_function, real, condition)
        other = self.optimizers()[2 if name == "generator" else 3]  # type: ignore[index]
        inverse = partial(self.inverse, loss_function)
        logs |= super().update(f"inverse_{name}", other, inverse, real, condition)
        if name == "generator":
            self.inverse_ema.update(self.inverse_generator, self.images_seen, self.images_per_iteration)
        return logs

    def inverse(
        self, loss_function: Any, real: Tensor, condition: Tensor, noise: Noise
    ) -> tuple[Tensor, Logs]:
        """A loss with samples and conditions exchanged, and all that belongs to them."""
        with self.exchanged():
            loss, logs = loss_function(condition, real, noise.stream("inverse"))
        return loss, {key.replace("/", "/inverse_", 1): value for key, value in logs.items()}

    @contextmanager
    def exchanged(self) -> Iterator[None]:
        """In here each of the two directions stands for the other one."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name in ("generator", "discriminator", "loss", "pool"):
            one, other = getattr(self, name), getattr(self, f"inverse_{name}")
            setattr(self, name, other)
            setattr(self, f"inverse_{name}", one)

    def discriminator_loss(self, real: Tensor, condition: Tensor | None, noise: Noise) -> tuple[Tensor, Logs]:
        with torch.no_grad():
            fake = self.generate(condition, noise)
        return self.loss_of_samples(condition, noise, real=real, fake=self.pooled(fake, noise))

    def pooled(self, fake: Tensor, noise: Noise) -> Tensor:
        """As many fakes out of the pool, which is the same on all ranks and gets the fakes of all."""
        if not len(self.pool.images):
            return fake
        world, count, own = self.trainer.world_size, len(fake), self.global_rank * len(fake)
        fakes = torch.cat([*self.all_gather(fake)]) if world > 1 else fake
        first = (noise.first - own * self.micro_batches) * world  # of this part of the batch, over all ranks
        draws = replace(noise.stream("pool"), first=first, count=world * count, device="cpu").uniform(2)
        return self.pool(fakes, self.images_seen + first, draws)[own : own + count]

    def sample_back(self, samples: Tensor, seed: int = 0) -> Tensor:
        """Conditions [B, *condition] of samples [B, *sample_shape], by the averaged inverse generator."""
        average: Any = self.inverse_ema.average
        noise = Noise(seed, 0, 0, len(samples), "back", self.device)
        return Sampler(average)(noise.normal(average.latent_dim), samples)


class Cycle(Reconstruction):
    """|F(G(a)) - a| + |G(F(b)) - b|, means over the values of an image; Zhu et al. 2017, equation 2."""

    name = "cycle"

    def __init__(self, gan: CycleGAN, weight: float) -> None:
        super().__init__(weight)
        self.gan = gan

    def __call__(self, context: Context) -> Tensor:
        there, back = context, replace(context, generator=self.gan.inverse_generator)
        with torch.no_grad():
            source = back.generator(back.latents(), context.real)
        returned = back.generator(back.latents(), context.fake), there.generator(there.latents(), source)
        return distance(returned[0], context.condition) + distance(returned[1], context.real)


class Identity(Reconstruction):
    """|G(b) - b|, mean over the values of an image; Zhu et al. 2017, section 5.2."""

    name = "identity"

    def __call__(self, context: Context) -> Tensor:
        return distance(context.generator(context.latents(), context.real), context.real)


def distance(one: Tensor, other: Any) -> Tensor:
    """Mean absolute difference [B] of images."""
    return (to_float32(one) - other).flatten(1).abs().mean(1)


def of_samples_alone(discriminator: Factory, shape: tuple[int, ...], condition: Condition) -> nn.Module:
    """A discriminator without a condition."""
    return discriminator(shape, 0)
