"""What every augmentation owes. A test file subclasses `Augments` and says which one it is about."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F

from litgan import GAN
from litgan.augment import Augmentation
from litgan.data import GANDataModule
from litgan.losses import NonSaturating, Relativistic
from litgan.networks import DCGANDiscriminator, DCGANGenerator
from litgan.noise import Noise
from litgan.penalties import R1


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
    return tiny_gan(
        generator=partial(DCGANGenerator, latent_dim=4, widths=[8, 8], norm="none"),
        discriminator=partial(DCGANDiscriminator, widths=[8, 8]),
        sample_shape=(1, 16, 16),
        **options,
    )


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
