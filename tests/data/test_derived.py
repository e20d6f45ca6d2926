"""Conditions that are computed from samples, and those that are taken from another data set."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from litgan import checkpoints
from litgan.data import (
    Derived,
    Digits,
    Downsample,
    Edges,
    GANDataModule,
    Grayscale,
    Identity,
    ImageFolder,
    Ring,
    Transform,
    Unpaired,
)
from litgan.noise import Noise
from litgan.rebuild import Builder
from litgan.recipe import Recipe

IMAGES = torch.rand(3, 3, 12, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1


def folder(path: Path, count: int = 6, size: tuple[int, int] = (12, 16)) -> str:
    random = np.random.default_rng(count)
    path.mkdir()
    for index in range(count):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path / f"{index}.png")
    return str(path)


def test_edges_are_sobel_s():
    gray = Grayscale()(IMAGES)[:, 0].numpy()
    slopes = [[ndimage.sobel(one, axis, mode="nearest") / 8 for axis in (0, 1)] for one in gray]
    strength = torch.from_numpy(np.stack([np.hypot(*both) for both in slopes])).clamp(max=1)[:, None]
    torch.testing.assert_close(Edges()(IMAGES), strength * 2 - 1)
    assert torch.equal(Edges(0.3)(IMAGES), torch.where(strength >= 0.3, 1.0, -1.0))
    step = torch.where(torch.arange(6) < 3, -1.0, 1.0).expand(1, 1, 5, 6)
    assert torch.equal(Edges()(step)[0, 0, 0], torch.tensor([-1.0, -1, 1, 1, -1, -1]))


def test_gray_and_small_images_are_pillow_s():
    bands = [Image.fromarray(band.numpy()) for band in IMAGES[0]]
    small = [np.asarray(band.resize((5, 3), Image.Resampling.BICUBIC)) for band in bands]
    expected = torch.from_numpy(np.stack(small)).clamp(-1, 1)
    torch.testing.assert_close(Downsample(4)(IMAGES)[0], expected, rtol=0, atol=1e-5)
    pixels = ((IMAGES[0].permute(1, 2, 0) + 1) * 127.5).byte()
    gray = torch.from_numpy(np.asarray(Image.fromarray(pixels.numpy()).convert("L")).copy())
    found = (Grayscale()(pixels.permute(2, 0, 1)[None] / 127.5 - 1) + 1) * 127.5
    torch.testing.assert_close(found[0, 0], gray.float(), rtol=0, atol=0.51)
    assert torch.equal(Grayscale()(IMAGES[:, :1]), IMAGES[:, :1])


@pytest.mark.parametrize("memory", ["host", "disk"])
def test_the_condition_is_that_of_the_varied_sample(memory, tmp_path):
    """Cropped at random and mirrored in training; in metrics as it is."""
    images = ImageFolder(folder(tmp_path / "a"), resolution=(12, 16), crop=(8, 12), flip=True)
    data = Derived(images, Edges(), batch_size=3, memory=memory)
    assert data.sample_shape == (3, 8, 12) and data.condition == (1, 8, 12)
    batches = [(real.clone(), condition) for real, condition in data.train_dataloader()]
    assert len(batches) == 2
    for real, condition in [*batches, *data.real_batches(6, batch_size=3)]:
        assert real.shape == (3, 3, 8, 12)
        torch.testing.assert_close(condition, Edges()(real))
    middle = images.load()[0]
    middle = torch.stack([middle[index] for index in range(6)])[:, :, 2:10, 2:14] / 127.5 - 1
    reals = torch.cat([real for real, _ in data.real_batches(6)])
    torch.testing.assert_close(reals[data._fixed_order("train").argsort()], middle)
    assert data.fingerprint == images.fingerprint  # the reals of metrics are the same
    assert data.signature != Derived(images, Grayscale(), memory=memory).signature


def test_files_of_one_s_own_keep_their_size(tmp_path):
    own = Path(folder(tmp_path / "own", 1, (10, 7)), "0.png")
    image = torch.from_numpy(np.asarray(Image.open(own)).copy()).permute(2, 0, 1) / 127.5 - 1
    images = ImageFolder(str(tmp_path), resolution=8)
    for function, expected in ((Edges(), Edges()(image[None])[0]), (Downsample(4), image)):
        torch.testing.assert_close(Derived(images, function).read_condition(own), expected)
    torch.testing.assert_close(Unpaired(images, images).read_condition(own), image)
    assert Derived(Digits(), Identity()).read_condition(own).shape == (1, 10, 7)
    with pytest.raises(ValueError, match=r"^Ring reads no samples from files: .* read_sample"):
        Derived(Ring(), Identity()).read_condition(own)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Derived(Digits(), Downsample(3)), "8 x 8 pixels by 3"),
        (lambda: Derived(Digits(), Downsample(0)), "factor of Downsample is 0"),
        (lambda: Edges(1.5), "threshold of Edges is 1.5"),
        (lambda: Derived(Ring(), Edges()), r"Edges takes images .* not \[1, 2\]"),
        (lambda: Derived(Digits(), Edges(), num_classes=10), "leave num_classes 10 out"),
        (lambda: Unpaired(Digits(), Digits(), num_classes=10), "leave num_classes 10 out"),
        (lambda: Unpaired(Digits(flip=True), Digits()), "flip is True and False"),
        (lambda: ImageFolder("x", resolution=8, crop=9), r"data.crop is \[9, 9\] .* \[8, 8\]"),
    ],
)
def test_what_does_not_fit_is_named(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def parts(data: GANDataModule) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = list(data.real_batches(data.size()))
    return torch.cat([real for real, _ in pairs]), torch.cat([condition for _, condition in pairs])


@pytest.mark.parametrize("memory", ["host", "disk"])
def test_an_epoch_of_unpaired_ones_shows_all_of_both(memory, tmp_path):
    few, many = (ImageFolder(folder(tmp_path / name, n), resolution=8) for name, n in (("a", 4), ("b", 9)))
    for data, counts in ((Unpaired(few, many, memory=memory), (4, 9)), (Unpaired(many, few), (9, 4))):
        assert data.size() == 9
        real, condition = parts(data)
        assert [len(each.flatten(1).unique(dim=0)) for each in (real, condition)] == list(counts)
        assert len(real[: counts[0]].flatten(1).unique(dim=0)) == counts[0]  # what repeats comes last
        assert torch.equal(condition, data.eval_conditions(9))
        again = parts(Unpaired(data.data, data.conditions))
        assert torch.equal(again[0], real) and torch.equal(again[1], condition)
    assert Unpaired(few, many).fingerprint != Unpaired(many, few).fingerprint


def test_disjoint_ones_have_no_digit_in_common():
    digits, edges = Digits(), Derived(Digits(), Edges())
    data = Unpaired(digits, edges, disjoint=True)
    real, condition = parts(data)
    whole = torch.cat([real for real, _ in digits.real_batches(1797)])[digits._fixed_order("train").argsort()]
    assert data.condition == (1, 8, 8) and data.size() == 899
    for found, all_, kept in ((real, whole, slice(899)), (condition, Edges()(whole), slice(899, None))):
        assert torch.equal(found.flatten(1).unique(dim=0), all_[kept].flatten(1).unique(dim=0))


def test_unpaired_ones_are_cropped_each_for_itself_and_alike_on_all_ranks(tmp_path):
    images = ImageFolder(folder(tmp_path / "a", 8), resolution=(12, 16), crop=8)
    data = Unpaired(images, images, memory="host")
    stored = data.load()[0]
    whole = data.augment_pair(stored, stored, Noise(0, 3, 0, 8))
    ranks = [data.augment_pair(stored[n : n + 4], stored[n : n + 4], Noise(0, 3, n, 4)) for n in (0, 4)]
    for place in (0, 1):
        assert torch.equal(whole[place], torch.cat([rank[place] for rank in ranks]))
        assert whole[place].shape == (8, 3, 8, 8)
    assert not torch.equal(*whole)


MINE = """
from litgan.data import Transform

class Negative(Transform):
    def __call__(self, samples):
        return -samples
"""


def test_a_function_of_one_s_own_is_a_class_in_a_file(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "mine", None)
    monkeypatch.delitem(sys.modules, "mine")  # and forget it again
    recipe = Recipe(
        [
            "--config", str(Path(__file__).parents[2] / "configs" / "digits.yaml"),
            "--data=litgan.data.Derived", "--data.data=litgan.data.Digits", "--data.data.resolution=16",
            "--data.function=mine.Negative", "--model.generator=shared.pairs.Translator",
            "--model.discriminator=shared.pairs.Critic", f"--trainer.default_root_dir={tmp_path}",
        ],
        "validate",
    )  # fmt: skip
    assert recipe.model.condition == recipe.model.sample_shape == (1, 16, 16)
    checkpoint = {"litgan": {"recipe": recipe.model.recipe}}
    with pytest.raises(ValueError, match="--trust mine"):
        checkpoints.build_data(checkpoint, GANDataModule)
    data = checkpoints.build_data(checkpoint, GANDataModule, Builder("mine"))
    real, condition = next(data.real_batches(5))
    assert torch.equal(condition, -real) and isinstance(data.function, Transform)
