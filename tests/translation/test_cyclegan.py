"""CycleGAN; as a script it forks one rank, then two."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import workers
from contract import refuses
from shared import ranks
from shared.resuming import check_six_are_three_and_three, player
from torch import Tensor, nn

from litgan.data import GANDataModule
from litgan.losses import LeastSquares
from litgan.networks import PatchDiscriminator
from litgan.noise import Noise, torch_generator
from litgan.penalties import R1
from litgan.render import PointBatch
from litgan.translation import CycleGAN, MultiScale, ResNetTranslator

CENTER, RADIUS = torch.tensor([0.5, -0.3]), 0.7  # of the conditions' ring; samples' are 0 and 1


class Generator(nn.Module):
    """Points to points."""

    latent_dim = 0

    def __init__(self, shape: tuple[int, ...], condition: tuple[int, ...], width: int = 64) -> None:
        super().__init__()
        self.layers = layers(width, 2)

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        return condition + self.layers(condition)


class Discriminator(nn.Module):
    def __init__(self, shape: tuple[int, ...], condition: int, width: int = 64) -> None:
        super().__init__()
        assert condition == 0
        self.layers = layers(width, 1)

    def forward(self, samples: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.layers(samples)


def layers(width: int, outputs: int) -> nn.Sequential:
    first, second = nn.Linear(2, width), nn.Linear(width, width)
    return nn.Sequential(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2), nn.Linear(width, outputs))


def ring(count: int, name: str) -> tuple[Tensor, Tensor]:
    """Points near the corners of an octagon around 0, and which corner each is at."""
    generator = torch_generator(name)
    corners = torch.randint(8, (count,), generator=generator)
    angles = corners * math.pi / 4
    noise = 0.05 * torch.randn(count, 2, generator=generator)
    return torch.stack([angles.cos(), angles.sin()], 1) + noise, corners


class Rings(GANDataModule):
    """Samples and conditions are each a ring; rows do not belong together."""

    def __init__(self, samples: int = 40, **common: Any) -> None:
        super().__init__((2,), **common)
        self.condition, self.samples = (2,), samples

    def read(self, split: str) -> tuple[Tensor, Tensor]:
        conditions, _ = ring(self.samples, "conditions")
        return ring(self.samples, "samples")[0], CENTER + RADIUS * conditions

    def decode(self, samples: Tensor) -> PointBatch:
        return PointBatch(samples, limit=1.5)

    def encode(self, stored: Tensor) -> Tensor:
        return stored

    encode_condition = encode


ADAM = partial(torch.optim.Adam, lr=3e-3, betas=(0.5, 0.99))
POINTS: dict[str, Any] = {
    "generator": Generator, "discriminator": Discriminator, "loss": LeastSquares(), "identity_weight": 0.5,
    "generator_optimizer": ADAM, "discriminator_optimizer": ADAM, "sample_shape": (2,), "condition": (2,),
}  # fmt: skip
SMALL = POINTS | {
    "generator": partial(Generator, width=8),
    "discriminator": partial(Discriminator, width=8),
    "pool_size": 10,
}
NETWORKS = ("generator", "discriminator", "inverse_generator", "inverse_discriminator")


def batch() -> tuple[Tensor, Tensor, Noise]:
    """Real samples, conditions, and the noise of an update."""
    data = Rings(8)
    return *data.read("train"), Noise(0, 0, 0, 8)


def l1(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).abs().mean()


def test_the_generators_minimize_the_published_sum() -> None:
    gan, (real, condition, noise) = CycleGAN(**SMALL, cycle_weight=3.0), batch()
    there, back = (
        lambda points, net=net: net(None, points) for net in (gan.generator, gan.inverse_generator)
    )
    loss, logs = gan.generator_loss(real, condition, noise)
    cycles = l1(back(there(condition)), condition) + l1(there(back(real)), real)
    adversarial = 0.5 * (gan.discriminator(there(condition)) - 1).square().mean()
    torch.testing.assert_close(loss, adversarial + 3 * cycles + 0.5 * l1(there(real), real))
    torch.testing.assert_close(logs["reconstruction/cycle"], cycles)

    loss, logs = gan.inverse(gan.generator_loss, real, condition, noise)
    adversarial = 0.5 * (gan.inverse_discriminator(back(real)) - 1).square().mean()
    torch.testing.assert_close(loss, adversarial + 3 * cycles + 0.5 * l1(back(condition), condition))
    assert {"loss/inverse_generator", "reconstruction/inverse_identity"} <= logs.keys()


def test_directions_are_back_in_their_places_after_an_error() -> None:
    gan = CycleGAN(**SMALL)
    before = [getattr(gan, name) for name in NETWORKS]

    def fail(*arguments: Any) -> Any:
        assert gan.generator is before[2] and gan.discriminator is before[3]
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        gan.inverse(fail, *batch())
    assert [getattr(gan, name) for name in NETWORKS] == before


def test_discriminators_get_the_pool_s_fakes(make_trainer) -> None:
    gan, (_, condition, noise) = CycleGAN(**SMALL), batch()
    gan._trainer = make_trainer(1)
    with torch.no_grad():
        fake = gan.generator(None, condition)
        assert torch.equal(gan.pooled(fake, noise), fake)
        gan.images_seen = 8
        gan.pooled(fake + 10, noise)
        gan.images_seen = 16
        mixed = gan.pooled(fake + 20, noise)
    earlier = (mixed - fake - 20).abs().amax(1) > 1
    assert earlier.any() and not earlier.all()
    draws = noise.stream("pool").uniform(2)
    assert torch.equal(earlier, draws[:, 0] < 0.5)


def test_each_of_four_networks_learns_by_its_own_optimizer(make_trainer) -> None:
    image, gray = (3, 16, 16), (1, 16, 16)

    class Pictures(Rings):
        def read(self, split: str) -> tuple[Tensor, Tensor]:
            return torch.rand(8, *image) - 0.5, torch.rand(8, *gray) - 0.5

    shapes = {"sample_shape": image, "condition": gray, "identity_weight": 0.0}
    networks = {
        "generator": partial(ResNetTranslator, widths=(4, 6), blocks=1),
        "discriminator": partial(MultiScale, discriminators=[partial(PatchDiscriminator, widths=(4, 4))] * 2),
    }
    gan, data = CycleGAN(**POINTS | shapes | networks), Pictures(batch_size=4)
    data.sample_shape, data.condition = image, gray
    before = {name: [weight.clone() for weight in getattr(gan, name).parameters()] for name in NETWORKS}
    assert gan.loss.counts == gan.inverse_loss.counts == gan.discriminator.logit_counts
    trainer = make_trainer(2)
    trainer.fit(gan, datamodule=data)
    for optimizer, name in zip(trainer.optimizers, NETWORKS, strict=True):
        (group,) = optimizer.param_groups
        assert [*map(id, group["params"])] == [*map(id, getattr(gan, name).parameters())]
        assert all(not torch.equal(*pair) for pair in zip(group["params"], before[name], strict=True))
        assert optimizer.state[group["params"][0]]["step"] == 2
    assert gan.pool.images[:8].flatten(1).any(1).all() and gan.inverse_pool.images.shape[1:] == gray
    assert {"lr/inverse_generator", "loss/inverse_discriminator"} <= gan.last_logs.keys()


def test_samples_are_drawn_in_both_directions_by_the_averaged_generators(make_trainer) -> None:
    gan = CycleGAN(**SMALL, ema_halflife=100)
    make_trainer(3).fit(gan, datamodule=Rings(batch_size=8))
    real, condition, _ = batch()
    for drawn, average, current, given in (
        (gan.sample(8, condition=condition), gan.ema.average, gan.generator, condition),
        (gan.sample_back(real), gan.inverse_ema.average, gan.inverse_generator, real),
    ):
        torch.testing.assert_close(drawn, average(None, given))
        assert not torch.allclose(drawn, current(None, given))


def test_six_iterations_are_three_and_three(make_trainer, tmp_path: Path) -> None:
    """Also bit for bit the pools."""
    train = player(lambda **options: CycleGAN(**SMALL | options), Rings, make_trainer)
    options = {"pool_size": 20, "penalties": [R1(0.1, interval=2)], "micro_batches": 2}
    check_six_are_three_and_three(train, options, {"batch_size": 8}, tmp_path)


@pytest.mark.train
def test_it_finds_corner_for_corner_and_back(make_trainer) -> None:
    gan = CycleGAN(**POINTS | {"identity_weight": 0.0}, cycle_weight=1.0, ema_halflife=5000)
    points, corners = ring(2000, "held out")
    condition = CENTER + RADIUS * points

    def share_near_a_corner(fake: Tensor) -> float:
        angles = (torch.atan2(fake[:, 1], fake[:, 0]) / (math.pi / 4)).round() * math.pi / 4
        return ((fake - torch.stack([angles.cos(), angles.sin()], 1)).norm(dim=1) < 0.2).float().mean().item()

    assert share_near_a_corner(gan.sample(2000, condition=condition)) < 0.4
    make_trainer(500).fit(gan, datamodule=Rings(20_000, batch_size=128))
    fake = gan.sample(2000, condition=condition)
    assert share_near_a_corner(fake) > 0.97
    found = (torch.atan2(fake[:, 1], fake[:, 0]) / (math.pi / 4)).round() % 8
    table = torch.zeros(8, 8).index_put_((corners, found.long()), torch.ones(2000), accumulate=True)
    assert table.argmax(1).unique().numel() == 8 and table.amax(1).sum() > 1960, "one for one"
    assert (gan.sample_back(fake) - condition).norm(dim=1).mean() < 0.03


class Witnessed(workers.Witnessed, CycleGAN):
    """Keeps the latents that it draws."""


def game() -> dict[str, Any]:
    return workers.train(Witnessed(**SMALL, penalties=[R1(0.1)]), Rings(batch_size=8))


@pytest.mark.spawn
def test_two_ranks_play_as_one(tmp_path: Path) -> None:
    ranks.check(__file__, tmp_path, metrics=False)


def test_what_cannot_be_is_named() -> None:
    pictures = {"generator": ResNetTranslator, "discriminator": PatchDiscriminator}
    shapes = {"sample_shape": (3, 32, 32), "condition": (1, 32, 32)}
    refuses(lambda: CycleGAN(**POINTS | pictures | shapes), r"CycleGAN .*\(3, 32, 32\) .*identity_weight 0")
    ready = {"generator": Generator((2,), (2,))}
    refuses(lambda: CycleGAN(**SMALL | ready), "CycleGAN makes two of each network: give classes")


if __name__ == "__main__":
    ranks.main(game)
