"""Modules and loaders that litgan did not make, and Lightning's other verbs."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from litgan import GAN
from litgan.callbacks import Realism
from litgan.data import Digits
from litgan.losses import NonSaturating
from litgan.penalties import R1

ADAM = partial(torch.optim.Adam, lr=1e-3)
IMAGE = (1, 8, 8)


def networks() -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Unflatten(1, IMAGE))
    return generator, nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1))


def gan_of(generator: Any, discriminator: Any, **options: Any) -> GAN:
    options = {"sample_shape": IMAGE, "latent_dim": 5, "penalties": [R1()], **options}
    return GAN(generator, discriminator, NonSaturating(), ADAM, ADAM, **options)


class Plain(nn.Module):
    """A network that takes no condition."""

    latent_dim = 5

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_ready_modules_train_as_factories_do(make_trainer: Any, tmp_path: Any) -> None:
    def fitted(generator: Any, discriminator: Any, **options: Any) -> GAN:
        gan = gan_of(generator, discriminator, **options)
        trainer = make_trainer(3)
        trainer.fit(gan, datamodule=Digits(batch_size=16))
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return gan

    generator, discriminator = networks()
    factories = [lambda *_, it=network: copy.deepcopy(it) for network in (generator, discriminator)]
    modules = [copy.deepcopy(network) for network in (generator, discriminator)]
    plain = [Plain(copy.deepcopy(network)) for network in (generator, discriminator)]
    weights = [
        list(fitted(*pair, **options).state_dict().values())
        for pair, options in ((factories, {}), (modules, {}), (plain, {"latent_dim": None}))
    ]
    assert all(len({tuple(one.flatten().tolist()) for one in row}) == 1 for row in zip(*weights, strict=True))
    assert not torch.equal(weights[0][0], generator[0].weight)  # they have learned
    found = GAN.load_from_checkpoint(
        tmp_path / "last.ckpt", generator=plain[0], discriminator=plain[1], loss=NonSaturating(),
        generator_optimizer=ADAM, discriminator_optimizer=ADAM, sample_shape=IMAGE,
    )  # fmt: skip
    assert torch.equal(found.sample(3), found(found_latents(found, 3)))


def found_latents(gan: GAN, count: int) -> Tensor:
    """The latents that `gan.sample(count)` draws."""
    from litgan.noise import Noise

    return Noise(0, 0, 0, count, "sample").normal(gan.generator.latent_dim)


def test_what_ready_modules_lack_is_named() -> None:
    generator, discriminator = networks()
    with pytest.raises(ValueError, match=r"Sequential has no .*latent_dim"):
        gan_of(generator, discriminator, latent_dim=None)
    with pytest.raises(ValueError, match="takes no condition"):
        gan_of(generator, discriminator, condition=10)
    with pytest.raises(ValueError, match="Sequential"):
        gan_of(generator, discriminator, latent_dim=7)


def test_calling_a_gan_is_its_average_in_evaluation_mode(
    tiny_gan: Any, tiny_data: Any, make_trainer: Any
) -> None:
    gan = tiny_gan()
    make_trainer(3).fit(gan, datamodule=tiny_data())
    gan.train()
    latents = torch.randn(4, gan.generator.latent_dim)
    with torch.no_grad():
        expected = gan.ema.average(latents, None)
    assert torch.equal(gan(latents), expected) and gan.generator.training


class Dropped(GAN):
    """A game of its own: another network, with dropout, changes what is generated."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scale = nn.Dropout(0.5)

    def generate(self, condition: Tensor | None, noise: Any) -> Tensor:
        return self.scale(super().generate(condition, noise)) + 3.0


def test_a_subclass_samples_by_its_own_generate() -> None:
    gan, plain = (make(*networks(), NonSaturating(), ADAM, ADAM, sample_shape=IMAGE, latent_dim=5)
                  for make in (Dropped, GAN))  # fmt: skip
    gan.train()
    assert torch.equal(gan.sample(300), plain.sample(300) + 3.0)  # no dropout, and in chunks
    assert gan.training and gan.scale.training and isinstance(gan.generator.network, nn.Sequential)
    torch.testing.assert_close(gan.sample(4, truncation=0.5), plain.sample(4, truncation=0.5) + 3.0)


class Split(Digits):
    """The last digits are for tests."""

    splits = ("train", "test")

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        part = slice(0, 1500) if split == "train" else slice(1500, None)
        samples, labels = super().read("train")
        return samples[part], labels[part]


def test_trainer_tests_predicts_and_validates(make_trainer: Any) -> None:
    gan = gan_of(*networks())
    data = Digits(batch_size=500)
    trainer = make_trainer(1, callbacks=[Realism("digits", count=200)])
    (validated,) = trainer.validate(gan, datamodule=data, verbose=False)
    assert validated["metric/fd_digits"] > 0
    (tested,) = trainer.test(gan, datamodule=Split(batch_size=500), verbose=False)
    assert tested["metric/fd_digits"] != validated["metric/fd_digits"] > 0
    batches = trainer.predict(gan, datamodule=data)
    assert torch.equal(batches[0], gan.sample(500)) and len(torch.cat(batches)) >= 1500
