from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from shared.spoiling import Spoiled
from torch import nn
from torch.utils.data import DataLoader

from litgan import GAN
from litgan.callbacks import Checkpoint
from litgan.losses import Hinge, LeastSquares, Minimax, NonSaturating, Relativistic, Wasserstein
from litgan.networks import DCGANDiscriminator, DCGANGenerator
from litgan.noise import Noise
from litgan.penalties import R1, R2, WGANGP, Penalty
from litgan.schedules import Linear, WarmUp

BATCH = 8

# -- what an update moves ----------------------------------------------------------------------


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters and of those gradients that there are."""
    named = dict(network.named_parameters())
    gradients = {f"{name}.grad": value.grad for name, value in named.items() if value.grad is not None}
    return {name: value.detach().clone() for name, value in (named | gradients).items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


class Watched(GAN):
    """Notes after each update of which network, whether the other is untouched, and what did not learn."""

    def update(self, name, *arguments):
        own = getattr(self, name)
        other = self.generator if own is self.discriminator else self.discriminator
        own_before, other_before = snapshot(own), snapshot(other)
        logs = super().update(name, *arguments)
        still = {
            key for key, value in own.named_parameters()
            if value.grad is None or not value.grad.any() or torch.equal(value, own_before[key])
        }  # fmt: skip
        self.__dict__.setdefault("diary", []).append((name, same(other_before, snapshot(other)), still))
        return logs


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(
    ("loss", "penalties", "without_gradient"),
    [
        (NonSaturating(), [R1(0.1), R2(0.1)], set()),
        (LeastSquares(), [], set()),
        (Wasserstein(), [WGANGP()], {"head.linear.bias"}),  # the same for real and fake: it cancels
        (Relativistic(), [R1(0.1, interval=2)], {"head.linear.bias"}),
    ],
    ids=repr,
)
def test_an_update_moves_all_of_its_own_network_and_no_bit_of_the_other(
    loss, penalties, without_gradient, steps, tiny_gan, tiny_data, make_trainer
):
    gan = tiny_gan(Watched, loss=loss, penalties=penalties, discriminator_steps=steps)
    make_trainer(3).fit(gan, datamodule=tiny_data())
    iteration = [("discriminator", True, without_gradient)] * steps + [("generator", True, set())]
    assert gan.diary == iteration * 3


@pytest.mark.parametrize("classes", [0, 3])
def test_the_same_with_convolutions_labels_and_norms(classes, tiny_gan, make_trainer):
    gan = tiny_gan(
        Watched,
        generator=partial(DCGANGenerator, latent_dim=4, widths=(8, 4)),
        discriminator=partial(DCGANDiscriminator, widths=(4, 8), norm="group", spectral_norm=True),
        penalties=[R1(0.1)],
        sample_shape=(1, 8, 8),
        condition=classes,
    )
    images, labels = torch.rand(24, 1, 8, 8), torch.arange(24) % 3
    batches = list(zip(images.split(6), labels.split(6), strict=True))
    make_trainer(3).fit(gan, train_dataloaders=DataLoader(batches, batch_size=None))
    assert gan.diary == [("discriminator", True, set()), ("generator", True, set())] * 3


# -- the clock ---------------------------------------------------------------------------------


class Diary(Callback):
    """Keeps the batches and what each step recorded."""

    def __init__(self):
        self.batches, self.records = [], []

    def on_train_batch_end(self, trainer, gan, outputs, batch, batch_idx):
        self.batches.append(batch[0].clone())
        self.records.append({name: float(value.mean()) for name, value in outputs.items()})


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_max_steps_are_iterations(steps, tiny_gan, tiny_data, make_trainer):
    gan, data, diary = tiny_gan(discriminator_steps=steps), tiny_data(), Diary()
    trainer = make_trainer(4, callbacks=[diary])
    trainer.fit(gan, datamodule=data)
    assert trainer.global_step == 4
    assert gan.discriminator_updates == len(diary.batches) == 4 * steps
    assert gan.images_seen == 4 * steps * BATCH
    counts = [{int(state["step"]) for state in each.state.values()} for each in trainer.optimizers]
    assert counts == [{4}, {4 * steps}]
    assert ["loss/generator" in record for record in diary.records] == ([False] * (steps - 1) + [True]) * 4
    # Each step gets a fresh batch: within an epoch of 5 batches no sample comes twice, all 40 come once.
    for epoch in range(0, 4 * steps - 4, 5):
        assert len(torch.cat(diary.batches[epoch : epoch + 5]).unique(dim=0)) == 5 * BATCH


class Passes(Callback):
    """Notes when a cadence of 20 images is passed."""

    def __init__(self):
        self.at = []

    def on_train_batch_end(self, trainer, gan, *_):
        self.at += [gan.images_seen] * gan.is_due(20)
        assert not gan.is_due(0)


def test_a_cadence_in_images_is_passed_once_and_only_by_whole_iterations(tiny_gan, tiny_data, make_trainer):
    passes = Passes()
    make_trainer(5, callbacks=[passes]).fit(tiny_gan(discriminator_steps=2), datamodule=tiny_data())
    assert passes.at == [32, 48, 64, 80]  # for 20, 40, 60 and 80


class Counted(Penalty):
    """A penalty of a known value: the number of its update. Keeps the random numbers that it draws."""

    name = "counted"

    def __init__(self, gan_of, **options):
        super().__init__(**options)
        self.gan_of, self.drawn = gan_of, []

    def __call__(self, context):
        self.drawn += [context.uniform(self.name, 2), context.normal_like(context.real, self.name)]
        return torch.full((len(context.real),), float(self.gan_of().discriminator_updates))


@pytest.mark.parametrize("steps", [1, 2])
def test_lazy_penalties_count_updates_since_the_run_began(steps, tiny_gan, tiny_data, make_trainer, tmp_path):
    def run(iterations, ckpt_path=None):
        diary = Diary()
        gan = tiny_gan(penalties=[Counted(lambda: gan, interval=3)], discriminator_steps=steps)
        trainer = make_trainer(iterations, callbacks=[diary])
        trainer.fit(gan, datamodule=tiny_data(), ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "end.ckpt")
        return [record.get("penalty/counted") for record in diary.records]

    def expected(first, last):
        return [float(update) if update % 3 == 0 else None for update in range(first * steps, last * steps)]

    assert run(7) == expected(0, 7)
    assert run(4) == expected(0, 4)
    assert run(7, tmp_path / "end.ckpt") == expected(4, 7)


def test_penalties_draw_from_the_clock_too(tiny_gan, tiny_data, make_trainer):
    counted = Counted(lambda: gan)
    gan = tiny_gan(penalties=[counted], seed=3)
    make_trainer(2).fit(gan, datamodule=tiny_data())
    streams = [Noise(3, update, 0, BATCH, "discriminator/counted") for update in range(2)]
    expected = [numbers for noise in streams for numbers in (noise.uniform(2), noise.normal(2))]
    torch.testing.assert_close(counted.drawn, expected, rtol=0, atol=0)


# -- the updates, against a loop in plain PyTorch ----------------------------------------------


def cross_entropy(real, fake):
    return -torch.log(real.sigmoid()) - torch.log(1 - fake.sigmoid())


TEXTBOOK = {  # the losses as the papers write them, of real logits r and fake logits f: D's and G's
    Minimax: (cross_entropy, lambda r, f: torch.log(1 - f.sigmoid())),
    NonSaturating: (cross_entropy, lambda r, f: -torch.log(f.sigmoid())),
    Hinge: (lambda r, f: (1 - r).clamp(min=0) + (1 + f).clamp(min=0), lambda r, f: -f),
    LeastSquares: (lambda r, f: 0.5 * (r - 1) ** 2 + 0.5 * f**2, lambda r, f: 0.5 * (f - 1) ** 2),
    Wasserstein: (lambda r, f: f - r, lambda r, f: -f),
    Relativistic: (lambda r, f: -torch.log((r - f).sigmoid()), lambda r, f: -torch.log((f - r).sigmoid())),
}


def play(gan, batches, *, loss, iterations, steps, weight, every, warm_up):
    """The game by hand: (generator, discriminator, average) after so many iterations."""
    generator, discriminator = copy.deepcopy(gan.generator), copy.deepcopy(gan.discriminator)
    average = copy.deepcopy(generator)
    of_generator = torch.optim.Adam(generator.parameters(), betas=(0.0, 0.99))
    of_discriminator = torch.optim.Adam(discriminator.parameters(), betas=(0.0, 0.99))
    discriminator_loss, generator_loss = TEXTBOOK[loss]

    def descend(optimizer, objective, images_seen):
        optimizer.param_groups[0]["lr"] = 1e-3 * min(1.0, images_seen / warm_up)
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()

    for update, real in zip(range(iterations * steps), batches, strict=False):
        fake = generator(Noise(0, update, 0, BATCH, "discriminator").normal(4)).detach()
        objective = discriminator_loss(discriminator(real), discriminator(fake)).mean()
        if update % every == 0:
            points = real.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(discriminator(points).sum(), points, create_graph=True)
            objective = objective + every * weight * sum(row.norm() ** 2 for row in gradient) / BATCH
        descend(of_discriminator, objective, update * BATCH)
        if update % steps == steps - 1:
            images_seen = (update + 1) * BATCH
            fake = generator(Noise(0, update, 0, BATCH, "generator").normal(4))
            objective = generator_loss(discriminator(real), discriminator(fake)).mean()
            descend(of_generator, objective, images_seen)
            keep = 0.5 ** (steps * BATCH / min(100.0, 0.5 * images_seen))
            for old, new in zip(average.parameters(), generator.parameters(), strict=True):
                old.data = keep * old.data + (1 - keep) * new.data
    return generator, discriminator, average


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("loss", TEXTBOOK)
def test_updates_equal_a_hand_written_loop(loss, steps, tiny_gan, tiny_data, make_trainer):
    gan = tiny_gan(
        loss=loss(), penalties=[R1(0.3, interval=2)], discriminator_steps=steps,
        lr_schedule=WarmUp(32), ema_halflife=100, ema_rampup=0.5,
    )  # fmt: skip
    data = tiny_data(samples=10 * BATCH)
    batches = [real for real, _ in data.train_dataloader()]
    expected = play(gan, batches, loss=loss, iterations=5, steps=steps, weight=0.3, every=2, warm_up=32)
    start = snapshot(gan)
    make_trainer(5).fit(gan, datamodule=data)
    for name, network in zip(("generator", "discriminator", "ema.average"), expected, strict=True):
        for key, value in network.named_parameters():
            ours, what = gan.get_parameter(f"{name}.{key}"), f"{name}.{key}"
            assert torch.allclose(ours, value, rtol=1e-5, atol=1e-6), what
            # Where real and fake are compared, the last bias cancels: it alone may stand still.
            assert key == "head.linear.bias" or (ours - start[what]).abs().max() > 1e-4


def test_penalty_weights_follow_their_schedule(tiny_gan, tiny_data, make_trainer):
    """A schedule from 0 to 1 over 16 images weighs a penalty 0, 1/2, 1: as three plain runs show."""
    scheduled = tiny_gan(penalties=[R1(Linear(0.0, 1.0, images=16))])
    make_trainer(3).fit(scheduled, datamodule=tiny_data())

    class ByHand(R1):
        def __call__(self, context):
            self.calls = getattr(self, "calls", -1) + 1
            return (0.0, 0.5, 1.0)[self.calls] * super().__call__(context)

    by_hand = tiny_gan(penalties=[ByHand(1.0)])
    make_trainer(3).fit(by_hand, datamodule=tiny_data())
    assert same(snapshot(scheduled.discriminator), snapshot(by_hand.discriminator))


# -- construction, loss of finiteness, samples -------------------------------------------------


def test_equal_seeds_give_equal_weights_whatever_ran_before(tiny_gan):
    torch.manual_seed(3)
    first = tiny_gan(seed=5)
    torch.rand(1)
    second, other = tiny_gan(seed=5), tiny_gan(seed=6)
    assert same(first.state_dict(), second.state_dict())
    assert not same(first.state_dict(), other.state_dict())


def test_data_of_another_shape_are_refused(tiny_gan, tiny_data, make_trainer):
    with pytest.raises(ValueError, match=r"data's samples have shape \(2,\), this GAN makes \(3,\)"):
        make_trainer(1).fit(tiny_gan(sample_shape=(3,)), datamodule=tiny_data())


@pytest.mark.parametrize(("whose", "images"), [("discriminator", 16), ("generator", 24)])
def test_a_loss_that_is_not_finite_stops_the_run_and_spoils_nothing(
    whose, images, tiny_gan, tiny_data, make_trainer, tmp_path
):
    keeper = Checkpoint(every=0, minutes=0, folder=str(tmp_path))
    gan = tiny_gan(loss=Spoiled(whose, 2, float("nan")))
    trainer = make_trainer(9, callbacks=[keeper])
    with pytest.raises(FloatingPointError, match=f"loss/{whose} became nan after {images} images"):
        trainer.fit(gan, datamodule=tiny_data())
    good = tiny_gan()
    make_trainer(2).fit(good, datamodule=tiny_data())
    assert same(gan.get_submodule(whose).state_dict(), good.get_submodule(whose).state_dict())
    assert same(gan.ema.state_dict(), good.ema.state_dict())
    resumed = tiny_gan()
    make_trainer(4).fit(resumed, datamodule=tiny_data(), ckpt_path=tmp_path / "last.ckpt")
    assert resumed.images_seen == 32 and all(value.isfinite().all() for value in resumed.parameters())


def test_samples_are_the_averages_and_repeatable(tiny_gan, tiny_data, make_trainer):
    gan = tiny_gan(condition=8, ema_halflife=1000, ema_rampup=0)
    make_trainer(6).fit(gan, datamodule=tiny_data(num_classes=8))
    gan.train()
    samples = gan.sample(20, seed=1)
    assert samples.shape == (20, 2) and not samples.requires_grad
    assert gan.generator.training  # as it was found
    latents = Noise(1, 0, 0, 20, "sample").normal(4)
    labels = torch.arange(20) % 8
    torch.testing.assert_close(samples, gan.ema.average(latents, labels))
    torch.testing.assert_close(gan.sample(20, 1, ema=False), gan.generator(latents, labels).detach())
    assert not torch.allclose(samples, gan.sample(20, 1, ema=False), atol=1e-4)
    torch.testing.assert_close(gan.sample(5, 1, first=9), samples[9:14])
    assert not torch.allclose(samples, gan.sample(20, seed=2))
    in_turn = gan.ema.average(latents[:4], torch.tensor([2, 5, 2, 5]))
    torch.testing.assert_close(gan.sample(4, 1, [2, 5]), in_turn)


def test_lazy_penalties_are_logged_though_silent_at_the_logging_point(tiny_gan, tiny_data, make_trainer):
    gan = tiny_gan(penalties=[R1(interval=5)])  # in the first update of three, and the third is logged
    make_trainer(3, log_every_n_steps=3).fit(gan, datamodule=tiny_data())
    assert gan.logged["penalty/r1"] > 0


class Backwards(Callback):
    """Notes the backward passes that callbacks are told of."""

    def __init__(self):
        self.heard = []

    def on_before_backward(self, trainer, gan, loss):
        self.heard.append(("before", gan.updating))

    def on_after_backward(self, trainer, gan):
        self.heard.append(("after", gan.updating))


def test_callbacks_hear_every_backward_pass_and_change_nothing(tiny_gan, tiny_data, make_trainer):
    gan, silent, backwards = tiny_gan(), tiny_gan(), Backwards()
    make_trainer(3).fit(silent, datamodule=tiny_data())
    make_trainer(3, callbacks=[backwards]).fit(gan, datamodule=tiny_data())
    names = ("discriminator", "generator")
    assert backwards.heard == [(when, name) for name in names for when in ("before", "after")] * 3
    assert same(gan.state_dict(), silent.state_dict())
