"""What every augmentation owes. A test file subclasses `Augments` and says which one it is about."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from shared.penalties import LinearGenerator
from torch import nn

from litgan import GAN
from litgan.augment import Augmentation
from litgan.data import GANDataModule
from litgan.losses import NonSaturating, Relativistic
from litgan.networks import DCGANDiscriminator, DCGANGenerator
from litgan.noise import Noise
from litgan.penalties import R1, R2, FiniteDifferenceR1, FiniteDifferenceR2, Penalty


def smooth(count: int = 8, channels: int = 3, side: int = 32) -> torch.Tensor:
    torch.manual_seed(0)
    blurred = torch.randn(count, channels, side + 16, side + 16)
    for _ in range(4):
        blurred = F.avg_pool2d(blurred, 5, 1)
    return (blurred / blurred.abs().amax()).contiguous()


def draws(augment: Augmentation, count: int, first: int = 0) -> torch.Tensor:
    return Noise(0, 0, first, count, "test").uniform(augment.num_uniforms)


class Pictures(GANDataModule):
    """40 small pictures."""

    def __init__(self, **common: Any) -> None:
        super().__init__((1, 16, 16), batch_size=8, **common)

    def read(self, split):
        return torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(0)), None

    def decode(self, samples):
        raise NotImplementedError


def images_gan(tiny_gan: Callable[..., GAN], **options: Any) -> GAN:
    defaults = {
        "generator": partial(DCGANGenerator, latent_dim=4, widths=[8, 8], norm="none"),
        "discriminator": partial(DCGANDiscriminator, widths=[8, 8]),
        "sample_shape": (1, 16, 16),
    }
    return tiny_gan(**(defaults | options))


class Bent(nn.Module):
    """A small critic without kinks."""

    def __init__(self, sample_shape: tuple[int, ...], num_classes: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(math.prod(sample_shape), 8), nn.Tanh(), nn.Linear(8, 1)
        )

    def forward(self, samples: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.layers(samples)


class Augments:
    """Subclasses say which one, set so that it changes every sample."""

    augment: ClassVar[Augmentation]

    @pytest.mark.parametrize("channels", [1, 3])
    def test_each_sample_changes_by_its_own_draws_alone(self, channels):
        images = smooth(channels=channels)
        whole = self.augment(images, draws(self.augment, 8))
        halves = [self.augment(images[k : k + 4], draws(self.augment, 4, first=k)) for k in (0, 4)]
        torch.testing.assert_close(torch.cat(halves), whole, atol=1e-5, rtol=1e-5)
        assert whole.shape == images.shape and whole.isfinite().all()
        assert ((whole - images).abs().flatten(1).amax(1) > 0.01).all()
        assert not torch.equal(whole, self.augment(images, draws(self.augment, 8, first=64)))

    def test_the_gradient_comes_back_to_every_sample(self):
        images = smooth().requires_grad_()
        self.augment(images, draws(self.augment, 8)).square().sum().backward()
        assert (images.grad.flatten(1).abs().amax(1) > 0).all() and images.grad.isfinite().all()

    def test_other_media_are_refused(self):
        with pytest.raises(ValueError, match=r"leave model\.augment out"):
            self.augment(torch.zeros(2, 5), draws(self.augment, 2))

    @pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=["unpaired", "pairs"])
    def test_the_discriminator_sees_no_sample_unchanged(self, loss, tiny_gan, make_trainer):
        torch.manual_seed(0)
        gan = images_gan(tiny_gan, loss=loss, augment=self.augment, penalties=[R1(1.0)])
        seen = []
        gan.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
        data = Pictures()
        stored = data.load("train")[0]
        make_trainer(2).fit(gan, datamodule=data)
        assert len(seen) == 2 * (4 if loss.relativistic else 3)
        for samples in seen:
            distance = (samples[:, None] - stored[None]).flatten(2).abs().amax(2)
            assert (distance > 1e-3).all()

    @pytest.mark.parametrize("side", ["real", "fake"])
    def test_r1_and_r2_differentiate_by_the_sample_before_augmentation(self, side, tiny_gan):
        """As in the code of StyleGAN2-ADA and of R3GAN; here by central differences of D(T(x)) in x and D."""
        gan, noise = self.critic_of_pictures(tiny_gan, side), Noise(0, 0, 0, 2, "discriminator")
        real = smooth(2, channels=3, side=8).double()
        sample = real if side == "real" else gan.generate(None, noise).detach()
        changes = noise.stream(side).uniform(self.augment.num_uniforms)
        steps = 1e-4 * torch.eye(sample[0].numel()).double().view(-1, 1, *sample.shape[1:])

        def squared_norm() -> torch.Tensor:
            slopes = [gan.discriminator(self.augment(sample + step, changes)) for step in (*steps, *-steps)]
            ahead, behind = torch.stack(slopes).detach().split(len(steps))
            return ((ahead - behind) / 2e-4).square().sum(0).mean()

        name = "r1" if side == "real" else "r2"

        def penalty() -> torch.Tensor:
            return gan.discriminator_loss(real, None, noise)[1][f"penalty/{name}"]

        value = penalty()
        torch.testing.assert_close(value.detach(), squared_norm(), rtol=1e-5, atol=0)
        weight = gan.discriminator.layers[1].weight
        (gradient,) = torch.autograd.grad(value, weight)
        direction, found = torch.randn_like(weight), []
        for step in (1e-5, -2e-5):
            weight.data.add_(direction, alpha=step)
            found.append(penalty().detach())
        torch.testing.assert_close(
            (gradient * direction).sum(), (found[0] - found[1]) / 2e-5, rtol=1e-4, atol=1e-9
        )

    @pytest.mark.parametrize("side", ["real", "fake"])
    def test_finite_differences_step_before_augmentation(self, side, tiny_gan):
        gan, noise = self.critic_of_pictures(tiny_gan, side, finite=True), Noise(0, 0, 0, 2, "discriminator")
        (penalty,) = gan.penalties
        real = smooth(2, channels=3, side=8).double()
        sample = real if side == "real" else gan.generate(None, noise).detach()
        changes = noise.stream(side).uniform(self.augment.num_uniforms)
        moved = sample + penalty.sigma * noise.stream(penalty.name).normal(3, 8, 8)
        after, before = (gan.discriminator(self.augment(each, changes)) for each in (moved, sample))
        wanted = ((after - before) / penalty.sigma).square().mean()
        found = gan.discriminator_loss(real, None, noise)[1][f"penalty/{penalty.name}"]
        torch.testing.assert_close(found, wanted)

    def critic_of_pictures(self, tiny_gan: Callable[..., GAN], side: str, *, finite: bool = False) -> GAN:
        torch.manual_seed(0)
        kinds: dict[str, type[Penalty]] = (
            {"real": FiniteDifferenceR1, "fake": FiniteDifferenceR2} if finite else {"real": R1, "fake": R2}
        )
        gan = images_gan(
            tiny_gan,
            generator=lambda sample_shape, num_classes: LinearGenerator(4, *sample_shape),
            discriminator=Bent,
            sample_shape=(3, 8, 8),
            augment=self.augment,
            penalties=[kinds[side]()],
        )
        gan.discriminator.double()
        return gan
