from __future__ import annotations

import copy
import os
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from shared.resuming import same

from litgan import GAN, checkpoints, commands
from litgan.checkpoints import AtomicCheckpointIO
from litgan.data import GANDataModule, Ring
from litgan.networks import MLPGenerator
from litgan.rebuild import Builder
from litgan.recipe import Recipe

NETWORKS = "litgan.networks."
ARGUMENTS = {
    "generator": {"class_path": NETWORKS + "MLPGenerator", "init_args": {"latent_dim": 3, "widths": [8]}},
    "discriminator": {"class_path": NETWORKS + "MLPDiscriminator", "init_args": {"widths": [8]}},
    "loss": {"class_path": "litgan.losses.NonSaturating"},
    "generator_optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
    "discriminator_optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
    "penalties": [{"class_path": "litgan.penalties.R1", "init_args": {"weight": 0.1, "interval": 2}}],
    "lr_schedule": {"class_path": "litgan.schedules.WarmUp", "init_args": {"images": 16}},
    "sample_shape": [2],
    "condition": 8,
}
MODEL = {"class_path": "litgan.GAN", "init_args": ARGUMENTS}  # as litgan.recipe writes it
DATA = {"class_path": "litgan.data.Ring", "init_args": {"samples": 40, "batch_size": 8, "num_classes": 8}}


@pytest.fixture
def saved(tiny_gan, make_trainer, tmp_path) -> tuple[GAN, Path]:
    """A GAN that was trained for four iterations from a recipe, and its checkpoint."""
    gan = checkpoints.build_gan({"litgan": {"recipe": {"model": MODEL}}}, GAN)
    gan.recipe = {"model": MODEL, "data": DATA}
    trainer = make_trainer(4)
    trainer.fit(gan, datamodule=Ring(samples=40, batch_size=8, num_classes=8))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    return gan, tmp_path / "run.ckpt"


def edited(path: Path, edit) -> Path:
    """A copy of a checkpoint, after `edit` changed its content in place."""
    checkpoint = torch.load(path, weights_only=True)
    edit(checkpoint)
    torch.save(checkpoint, path.with_name("edited.ckpt"))
    return path.with_name("edited.ckpt")


# -- what a checkpoint gives back --------------------------------------------------------------


def test_a_checkpoint_alone_gives_the_same_samples(saved):
    gan, path = saved
    torch.manual_seed(99)
    again = GAN.load_from_checkpoint(path)
    assert not again.training and (again.images_seen, again.discriminator_updates, again.recipe) == (
        32,
        4,
        gan.recipe,
    )
    for options in ({}, {"ema": False}, {"condition": [3], "truncation": 0.5}):
        assert torch.equal(again.sample(300, seed=7, **options), gan.sample(300, seed=7, **options))
    assert not torch.equal(again.sample(9), again.sample(9, ema=False))
    assert (
        again.recipe == checkpoints.read(path)["litgan"]["recipe"]
    )  # plain data still: it can be saved anew
    data = checkpoints.build_data(checkpoints.read(path), GANDataModule)
    assert isinstance(data, Ring) and (data.samples, data.batch_size, data.num_classes) == (40, 8, 8)


def test_a_run_without_recipe_needs_the_constructors_arguments(tiny_gan, tiny_data, make_trainer, tmp_path):
    gan, trainer = tiny_gan(), make_trainer(2)
    trainer.fit(gan, datamodule=tiny_data())
    trainer.save_checkpoint(path := tmp_path / "plain.ckpt")
    make_generator, make_discriminator = (
        partial(MLPGenerator, latent_dim=4, widths=(16,)), lambda *shape: copy.deepcopy(gan.discriminator)
    )  # fmt: skip
    again = GAN.load_from_checkpoint(
        path, generator=make_generator, discriminator=make_discriminator, loss=gan.loss, sample_shape=(2,),
        generator_optimizer=torch.optim.Adam, discriminator_optimizer=torch.optim.Adam,
    )  # fmt: skip
    assert torch.equal(again.sample(20), gan.sample(20))
    with pytest.raises(ValueError, match=r"carries no recipe for its model, .*: pass the constr"):
        GAN.load_from_checkpoint(path)


# -- what a checkpoint cannot do ---------------------------------------------------------------


class Hostile:
    """Unpickled by the unwary, it creates a file."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


@pytest.mark.parametrize("place", ["root", "state_dict", "litgan", "optimizer_states", "callbacks"])
def test_a_hostile_pickle_is_refused_everywhere(place, saved, tiny_gan, tiny_data, make_trainer, tmp_path):
    victim = tmp_path / "victim"
    path = edited(saved[1], lambda it: it.update({place: Hostile(victim)}))
    torch.load(path, weights_only=False)
    assert victim.exists()  # it does bite
    victim.unlink()
    sentence = r"cannot be read \(UnpicklingError\): it .* holds objects that would run"
    with pytest.raises(ValueError, match=sentence):
        checkpoints.read(path)
    with pytest.raises(ValueError, match=sentence):
        GAN.load_from_checkpoint(path)
    with pytest.raises(ValueError, match=sentence):
        make_trainer(1).fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=path)
    with pytest.raises(ValueError, match=sentence):  # not even when Lightning's caller asks for all
        make_trainer(1).fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=path, weights_only=False)
    assert not victim.exists()


# -- what is no checkpoint of ours -------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        {"state_dict": {}, "litgan": 1},
        {"state_dict": 1, "litgan": {}},
        [1],
        torch.ones(1),
    ],
    ids=str,
)
def test_a_checkpoint_of_somebody_else(content, tmp_path):
    torch.save(content, tmp_path / "other.ckpt")
    for load in (checkpoints.read, GAN.load_from_checkpoint):
        with pytest.raises(ValueError, match=r"other\.ckpt was not written by litgan: give one from"):
            load(tmp_path / "other.ckpt")


@pytest.mark.parametrize("found", [None, 3, 5])
def test_a_checkpoint_of_another_format(found, saved, tiny_gan, tiny_data, make_trainer):
    """Names of weights and entries differ between formats; the first did not say its number."""

    def change(checkpoint):
        assert checkpoint["litgan"].pop("format") == checkpoints.FORMAT == 4
        checkpoint["litgan"] |= {} if found is None else {"format": found}

    path = edited(saved[1], change)
    sentence = rf"edited\.ckpt has format {found or 1} and this version of litgan reads 4: .* train again\.$"
    for load in (checkpoints.read, GAN.load_from_checkpoint):
        with pytest.raises(ValueError, match=sentence):
            load(path)
    with pytest.raises(ValueError, match=sentence):
        make_trainer(5).fit(tiny_gan(), datamodule=tiny_data(), ckpt_path=path)


def test_no_checkpoint(tmp_path):
    for path in (tmp_path / "none.ckpt", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"There is no checkpoint at {path}: give the path"):
            GAN.load_from_checkpoint(path)


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"widths": (16,)}, r"generator\.backbone\.0\.weight is \(8, 6\) in it and \(16, 6\) in this recipe"),
        ({"widths": (8, 8)}, r"generator\.backbone\.2\.weight is absent in it and \(8, 8\) in this recipe"),
    ],
)
def test_a_checkpoint_of_another_architecture(options, difference, saved, tiny_gan, make_trainer):
    gan = tiny_gan(generator=partial(MLPGenerator, latent_dim=3, **options), condition=8)
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    with pytest.raises(ValueError, match=f"is of another architecture: .*{difference}; resume") as caught:
        make_trainer(9).fit(gan, datamodule=Ring(samples=40, batch_size=8, num_classes=8), ckpt_path=saved[1])
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())
    wider = {"class_path": NETWORKS + "MLPGenerator", "init_args": {"latent_dim": 3, "widths": [16]}}
    path = edited(saved[1], lambda it: it["litgan"]["recipe"]["model"]["init_args"].update(generator=wider))
    with pytest.raises(ValueError, match="of another architecture"):
        GAN.load_from_checkpoint(path)


def test_a_checkpoint_that_lacks_weights_or_has_others_loads_unless_strict(
    saved, make_trainer, tiny_data, capsys
):
    """As torch's load_state_dict(strict=False): what both have is loaded, other shapes stay an error."""

    def change(checkpoint):
        weights = checkpoint["state_dict"]
        weights["discriminator.extra"] = weights.pop("discriminator.backbone.0.bias") + 1

    path = edited(saved[1], change)
    with pytest.raises(ValueError, match="another architecture"):
        GAN.load_from_checkpoint(path)
    gan = GAN.load_from_checkpoint(path, strict=False)
    said = capsys.readouterr().err
    assert (
        "missing in it" in said and "discriminator.backbone.0.bias" in said and "discriminator.extra" in said
    )
    weights, loaded = saved[0].state_dict(), gan.state_dict()
    differ = [name for name in weights if not torch.equal(weights[name], loaded[name])]
    assert loaded.keys() == weights.keys() and differ == ["discriminator.backbone.0.bias"]
    assert torch.equal(gan.sample(9), saved[0].sample(9))

    for strict in (True, False):  # Lightning's attribute decides in a Trainer
        gan = checkpoints.build_gan({"litgan": {"recipe": {"model": MODEL}}}, GAN)
        gan.strict_loading = strict
        data = Ring(samples=40, batch_size=8, num_classes=8)
        if strict:
            with pytest.raises(ValueError, match="another architecture"):
                make_trainer(5).validate(gan, datamodule=data, ckpt_path=path, verbose=False)
        else:
            make_trainer(5).validate(gan, datamodule=data, ckpt_path=path, verbose=False)
            assert torch.equal(gan.sample(9), saved[0].sample(9))

    weight = "generator.backbone.0.weight"
    wider = edited(saved[1], lambda it: it["state_dict"].update({weight: torch.zeros(9, 9)}))
    with pytest.raises(ValueError, match=weight):
        GAN.load_from_checkpoint(wider, strict=False)


def test_a_resumed_run_keeps_nothing_in_a_file_that_may_be_replaced(saved):
    """Weights, which networks copy, are not read until then."""
    gan, path = saved
    loaded, known = AtomicCheckpointIO().load_checkpoint(path), checkpoints.read(path)
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert all(not value.any() for value in loaded["state_dict"].values())
    assert same(loaded | {"state_dict": None}, known | {"state_dict": None})
    assert known["state_dict"].keys() == gan.state_dict().keys() and same(
        known["state_dict"], gan.state_dict()
    )


# -- writing -----------------------------------------------------------------------------------


def test_the_name_appears_only_with_the_whole_content(tmp_path, monkeypatch):
    """Whoever looks while it is written, or after a power cut, sees the old file or the new one."""
    path, seen = tmp_path / "last.ckpt", []
    save, sync = torch.save, os.fsync
    monkeypatch.setattr(torch, "save", lambda *a: (save(*a), seen.append(("written", path.exists()))))
    monkeypatch.setattr(os, "fsync", lambda number: (sync(number), seen.append(("on disk", path.exists()))))
    AtomicCheckpointIO().save_checkpoint({"litgan": {"format": checkpoints.FORMAT}, "state_dict": {}}, path)
    assert seen == [("written", False), ("on disk", False)] and path.exists()


def test_an_extractor_of_ones_own_comes_back_from_the_recipe():
    recipe = {"extractor": {"class_path": "litgan.metrics.extractors.Classifier", "init_args": {
        "name": "mine", "size": 8, "widths": [8], "num_classes": 3}}}  # fmt: skip
    for said, name in ((recipe, "mine"), ({"extractor": "digits"}, "digits")):
        checkpoint = {"litgan": {"recipe": {"realism": said}}, "state_dict": {}}
        found = commands.build_extractor(checkpoint, Builder())
        assert found.name == name and found.size == 8


def test_an_explicit_null_does_not_come_back_as_the_default(tmp_path, monkeypatch):
    (tmp_path / "nulls.py").write_text(
        "from litgan.losses import Hinge\n\n\nclass Loss(Hinge):\n"
        "    def __init__(self, scale: float | None = 1.0) -> None:\n        self.scale = scale\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    digits = Path(__file__).parents[1] / "configs" / "digits.yaml"
    loss = "--model.loss={class_path: nulls.Loss, init_args: {scale: null}}"
    recipe = Recipe(["--config", str(digits), loss, f"--trainer.default_root_dir={tmp_path}"], "validate")
    saved = yaml.safe_load(recipe.config_yaml)["model"]["init_args"]["loss"]["init_args"]
    again = checkpoints.build_gan({"litgan": {"recipe": recipe.model.recipe}}, GAN, Builder("nulls"))
    assert recipe.model.loss.scale is saved["scale"] is again.loss.scale is None
