"""A tensor as the condition: through data, updates, ranks, resumed runs, augmentation and sampling."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from shared.pairs import IMAGES, Critic, Flipped, Pairs, Translator, game, translator
from shared.resuming import check_six_are_three_and_three, player
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from litgan import checkpoints
from litgan.adversarial_weight import AdaptiveWeight
from litgan.augment import Augmentation, DiffAugment
from litgan.callbacks import Feedback, Realism, Samples
from litgan.checks import make_networks
from litgan.condition import choose_conditions
from litgan.data import Digits
from litgan.data.stock import LoaderData
from litgan.extras import wing
from litgan.gan import GAN
from litgan.gradient_flow import trace_gradients
from litgan.losses import NonSaturating
from litgan.networks import MLPGenerator
from litgan.noise import Noise
from litgan.penalties import DRAGAN, WGANGP, Context, FiniteDifferenceR1
from litgan.rebuild import Builder
from litgan.recipe import Recipe
from litgan.reconstruction import L1
from litgan.schedules import Linear

REALS = IMAGES.float() / 127.5 - 1
LOGGED = ("loss/generator", "loss/discriminator", "reconstruction/l1")


def batches(loader):
    return [(real.clone(), condition.clone()) for real, condition in loader]


@pytest.mark.parametrize("kind", [Pairs, Flipped])
@pytest.mark.parametrize("options", [{"memory": "disk"}, {"memory": "host"}, {"made": True}], ids=str)
def test_conditions_stay_with_their_samples_wherever_they_are_stored(kind, options):
    found, expected = (batches(kind(**each).train_dataloader()) for each in (options, {}))
    assert len(found) == 5
    for (real, condition), (other, _) in zip(found, expected, strict=True):
        assert torch.equal(real, other) and condition.dtype == torch.float32
        torch.testing.assert_close(condition, -real, rtol=0, atol=1e-6)
    plain = torch.cat([real for real, _ in batches(Pairs().train_dataloader())])
    assert torch.equal(torch.cat([real for real, _ in found]), plain) == (kind is Pairs)


def test_files_of_pairs_are_read_into_memory_where_both_fit(monkeypatch):
    class OnDisk(Pairs):
        def read(self, split):
            self.memory = "disk"
            files = super().read(split)
            self.memory = "auto"
            return files

    for factor, fits in ((8, True), (4, False)):  # a quarter of what is free
        monkeypatch.setattr("litgan.data.base.free_memory", lambda size=factor * IMAGES.nbytes: size)
        assert all(isinstance(part, torch.Tensor) == fits for part in OnDisk().load())


@pytest.mark.parametrize("made", [False, True])
def test_the_conditions_of_metrics_are_those_of_their_reals(made):
    data = Pairs(made=made)
    (real, condition), *_ = data.real_batches(12, split="test")
    assert torch.equal(data.eval_conditions(12, "test"), condition)
    assert torch.equal(data.eval_conditions(9, "test", first=8), condition[torch.arange(8, 17) % 12])
    torch.testing.assert_close(condition, -real, rtol=0, atol=1e-6)
    assert len(data.decode_condition(condition)) == 12
    with pytest.raises(ValueError, match=r"^Digits reads no conditions from files: .* read_condition"):
        Digits().read_condition("picture.png")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda parts: (parts[0], None), r"conditions of shape None where its condition is \(1, 8, 8\)"),
        (lambda parts: (parts[0], parts[1][:39]), "40 samples and 39 conditions"),
        (lambda parts: (parts[0], parts[1][:, :, :4]), r"conditions of shape \(1, 4, 8\)"),
        (
            lambda parts: (parts[0], torch.full((40, 1, 8, 8), torch.nan)),
            r"condition of sample 0 of Other \(train\) holds values that are not finite",
        ),
    ],
)
def test_conditions_that_do_not_fit_are_named(change, sentence):
    class Other(Pairs):
        def read(self, split):
            return change(super().read(split))

    with pytest.raises(ValueError, match=sentence):
        Other().load()


def test_six_iterations_are_three_and_three(tiny_gan, make_trainer, tmp_path):
    adversarial_weight = AdaptiveWeight(Linear(0.0, 0.8, images=32, begin=24))
    options = game(
        generator=Translator, reconstruction=[L1(10.0)], adversarial_weight=adversarial_weight,
        discriminator_start=16, augment=DiffAugment(), discriminator_steps=2,
    )  # fmt: skip
    check_six_are_three_and_three(player(tiny_gan, Flipped, make_trainer), options, {}, tmp_path)


def test_a_run_is_resumed_with_its_own_conditions(tiny_gan, make_trainer, tmp_path):
    trainer = make_trainer(1)
    trainer.fit(tiny_gan(**game()), datamodule=Pairs())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"^The checkpoint's run had other data \(content\)"):
        make_trainer(2).fit(
            tiny_gan(**game()), datamodule=Pairs(negative=False), ckpt_path=tmp_path / "last.ckpt"
        )


def test_micro_batches_teach_what_the_whole_teaches(tiny_gan, make_trainer):
    slow, states = partial(torch.optim.SGD, lr=0.02), []
    options = {"generator_optimizer": slow, "discriminator_optimizer": slow, "augment": DiffAugment()}
    options |= {"reconstruction": L1(), "adversarial_weight": AdaptiveWeight(0.8)}
    for parts in (1, 4):
        gan = tiny_gan(**game(generator=Translator, micro_batches=parts, **options))
        untrained = copy.deepcopy(gan.state_dict())
        make_trainer(4, log_every_n_steps=1).fit(gan, datamodule=Flipped())
        states.append(gan.state_dict() | {name: torch.tensor(gan.logged[name]) for name in LOGGED})
    torch.testing.assert_close(states[1], states[0], rtol=1e-5, atol=1e-6)
    moved = {name for name, value in untrained.items() if (states[0][name] - value).abs().max() > 1e-4}
    assert {name.partition(".")[0] for name in moved} == {"generator", "discriminator", "ema"}


@pytest.mark.parametrize("policy", [["translation"], ["cutout"], ["cutout", "color", "translation"]])
def test_diffaugment_moves_an_image_condition_as_the_samples(policy):
    augment, images = DiffAugment(policy), torch.randn(8, 2, 12, 10)
    uniforms = Noise(0, 0, 0, 8).uniform(augment.num_uniforms)
    moved = augment.pair(images, images, uniforms)[1]
    own = uniforms[:, -2:]  # the translation's
    assert torch.equal(
        moved, DiffAugment(["translation"])(images, own) if "translation" in policy else images
    )
    for condition in (None, torch.arange(8), torch.randn(8, 5)):
        assert augment.pair(images, condition, uniforms)[1] is condition
    if "translation" in policy:
        with pytest.raises(ValueError, match=r"DiffAugment translates a condition of \[6, 5\] pixels"):
            augment.pair(images, images[:, :, ::2, ::2], uniforms)


class Tinted(Augmentation):
    """Somebody's own, which does not say whether it moves."""

    num_uniforms = 1

    def forward(self, samples, uniforms):
        return samples + uniforms.view(-1, 1, 1, 1)


def test_an_augmentation_that_does_not_say_how_it_moves_a_condition_is_named(tiny_gan, make_trainer):
    with pytest.raises(ValueError, match=r"^Tinted does not say .* method move"):
        make_trainer(1).fit(tiny_gan(**game(augment=Tinted())), datamodule=Pairs())


class Watched(nn.Module):
    """A critic that keeps the conditions which it is given."""

    def __init__(self):
        super().__init__()
        self.given, self.critic = [], Critic((1, 8, 8), (1, 8, 8))

    def forward(self, samples, condition):
        self.given.append(condition.detach())
        return self.critic(samples, condition)


@pytest.mark.parametrize("penalty", [WGANGP(), DRAGAN(), FiniteDifferenceR1()], ids=repr)
def test_penalties_get_the_condition_moved_as_the_samples(penalty, tiny_gan):
    gan, noise = tiny_gan(**game(augment=DiffAugment(["translation"]))), Noise(0, 0, 0, 8, "discriminator")
    critic, condition = Watched(), -REALS[:8]
    sides = {"real": REALS[:8], "fake": REALS[8:16], "real_logits": torch.zeros(8, 1)}
    penalty(Context(None, critic, condition, noise, gan.augmented, **sides))
    of_real, of_fake = (gan.augmented(condition, None, noise.stream(side))[0] for side in ("real", "fake"))
    assert not torch.equal(of_real, of_fake)
    if isinstance(penalty, WGANGP):
        share = noise.stream(penalty.name).uniform(1).view(-1, 1, 1, 1)
        of_real = share * of_real + (1 - share) * of_fake
    torch.testing.assert_close(critic.given, [of_real])


def test_the_discriminator_gets_both_moved_alike(tiny_gan, make_trainer):
    gan = tiny_gan(**game(discriminator=Watched(), augment=DiffAugment(["translation"]), penalties=[]))
    seen = []
    gan.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    make_trainer(1).fit(gan, datamodule=Pairs())
    samples, condition = seen[0]  # the reals: each is minus its condition, and what moves in is 0
    torch.testing.assert_close(samples, -condition, rtol=0, atol=1e-6)
    assert (samples == 0).any() and len(seen) == 3


def test_samples_are_made_from_what_is_given(tiny_gan):
    gan, conditions = tiny_gan(**game()), torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        expected = gan.ema.average.network(conditions)
    assert torch.equal(gan.sample(12, condition=conditions), expected[torch.arange(12) % 5])
    assert torch.equal(gan.sample(3, condition=conditions[2:], first=9), expected[2:])
    assert gan.sample(2, condition=torch.randn(2, 1, 20, 12)).shape == (2, 1, 20, 12)
    for wrong in (None, [1], torch.arange(3), conditions[0]):
        with pytest.raises(ValueError, match=r"^This GAN has conditions of shape \(1, 8, 8\): give sample"):
            gan.sample(2, condition=wrong)
    with pytest.raises(ValueError, match="This GAN has labels of 3 classes"):
        choose_conditions(conditions, 0, 2, 3)


def test_a_module_of_one_argument_gets_the_condition_where_there_are_no_latents():
    generator, discriminator = translator(), nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    pair = make_networks(generator, discriminator, (1, 8, 8), (1, 8, 8))
    conditions = torch.randn(3, 1, 8, 8)
    assert pair[0].latent_dim == 0
    assert torch.equal(pair[0](torch.empty(3, 0), conditions), generator(conditions))
    assert torch.equal(pair[1](conditions, -conditions), discriminator(conditions))
    with pytest.raises(ValueError, match=r"^Sequential\.forward takes no condition, .* \(1, 8, 8\)"):
        make_networks(generator, discriminator, (1, 8, 8), (1, 8, 8), latent_dim=4)
    with pytest.raises(ValueError, match=r"^The generator cannot be made from .*\(\(2,\), \(3,\)\)"):
        make_networks(MLPGenerator, discriminator, (2,), (3,))


def test_the_feedback_is_traced_through_a_generator_without_latents():
    generator, discriminator = make_networks(translator(), Critic, (1, 8, 8), (1, 8, 8))
    trace = trace_gradients(
        generator, discriminator, NonSaturating(), torch.empty(6, 0), torch.randn(6, 1, 8, 8)
    )
    norms = trace.gradient_norms()
    rows = {"discriminator/first", "samples", "generator/network.0", "generator/condition"}
    assert rows <= norms.keys() and all(norm > 0 for norm in norms.values())


@pytest.mark.parametrize("condition", [(1, 8, 8), (3,)], ids=["images", "attributes"])
def test_a_stock_loader_of_pairs_serves_all_callbacks(condition, tiny_gan, make_trainer, tmp_path):
    images = REALS.clone()
    pairs = TensorDataset(images, -images if len(condition) == 3 else torch.randn(40, 3))
    networks = game()
    if len(condition) == 1:
        networks |= {"generator": Attributes(), "discriminator": Attributes.Critic()}
    gan = tiny_gan(**networks | {"condition": condition})
    diagnosis = wing("diagnosis")
    callbacks = [
        Realism("digits", every=16, count=40),
        Samples(every=16, count=8),
        Feedback(every=16, count=4),
    ]
    callbacks += [diagnosis.Diagnosis(every=16, count=16)] if diagnosis else []
    trainer = make_trainer(4, callbacks=callbacks)
    trainer.fit(gan, DataLoader(pairs, batch_size=8, shuffle=True))
    assert "metric/fd_digits" in trainer.callback_metrics
    assert {"000000000", "000000032", "gradient_flow"} <= {p.stem for p in tmp_path.rglob("*.png")}
    data = LoaderData(DataLoader(pairs, batch_size=8), "train", trainer, condition)
    found = torch.cat([part for _, part in data.real_batches(40)])
    assert torch.equal(data.eval_conditions(9, first=35), found[torch.arange(35, 44) % 40])
    stream = LoaderData(DataLoader(Stream(pairs), batch_size=8), "train", trainer, condition)
    for first, count in ((0, 3), (35, 9)):
        places = torch.arange(first, first + count) % 40
        assert torch.equal(stream.eval_conditions(count, first=first), pairs.tensors[1][places])


class Stream(IterableDataset):
    def __init__(self, pairs):
        self.pairs = pairs

    def __iter__(self):
        return (self.pairs[index] for index in range(len(self.pairs)))


class Attributes(nn.Module):
    """An image from a vector of attributes and latents."""

    latent_dim = 4

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(7, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))

    def forward(self, latents, condition):
        return self.layers(torch.cat([latents, condition], 1))

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(67, 16), nn.SiLU(), nn.Linear(16, 1))

        def forward(self, samples, condition):
            return self.layers(torch.cat([samples.flatten(1), condition], 1))


EXTRACTOR = "{class_path: litgan.metrics.Embedded, init_args: {name: digits}}"
PERCEPTUAL = f"{{class_path: Perceptual, init_args: {{extractor: {EXTRACTOR}, layers: [trunk.3]}}}}"
ADAPTIVE = "{class_path: litgan.adversarial_weight.AdaptiveWeight, init_args: {weight: 0.8}}"


def test_a_recipe_takes_the_condition_from_its_data(tmp_path):
    """And its checkpoint, which knows it as plain data, builds the same GAN again."""
    recipe = Recipe(
        [
            "--config", str(Path(__file__).parents[1] / "configs" / "digits.yaml"),
            "--data=shared.pairs.Pairs", "--model.generator=shared.pairs.Translator",
            "--model.discriminator=shared.pairs.Critic", f"--model.reconstruction=[L1, {PERCEPTUAL}]",
            f"--model.adversarial_weight={ADAPTIVE}", f"--trainer.default_root_dir={tmp_path}",
        ],
        "validate",
    )  # fmt: skip
    assert recipe.model.condition == (1, 8, 8) and recipe.model.num_classes == 0
    assert recipe.model.recipe["model"]["init_args"]["condition"] == [1, 8, 8]
    again = checkpoints.build_gan({"litgan": {"recipe": recipe.model.recipe}}, GAN, Builder("shared.pairs"))
    assert again.condition == (1, 8, 8) and again.adversarial_weight(0) == 0.8
    assert [term.name for term in again.reconstruction] == ["l1", "perceptual"]
