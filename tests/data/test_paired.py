"""Pairs of image files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litgan.data import PairedFolder
from litgan.noise import Noise

RANDOM = np.random.default_rng(0)


def save(path: Path, *shape: int, dtype: type = np.uint8) -> torch.Tensor:
    """A file of random pixels [H, W, ...], and these [C, H, W]."""
    pixels = RANDOM.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(np.atleast_3d(pixels.astype(np.int64))).permute(2, 0, 1)


def unit(pixels: torch.Tensor, highest: int = 255) -> torch.Tensor:
    return pixels / (highest / 2) - 1


def pairs(data: PairedFolder, split: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    """All of a split, in the order of their names."""
    order = data._fixed_order(split).argsort()
    real, condition = next(data.real_batches(data.size(split), split=split))
    return real[order], condition[order]


@pytest.mark.parametrize("memory", ["host", "disk"])
@pytest.mark.parametrize(("direction", "left"), [("left_to_right", 1), ("right_to_left", 0)])
def test_halves_and_folders_give_the_same_pairs(direction, left, memory, tmp_path):
    whole = torch.stack([save(tmp_path / "both" / split / f"{n}.png", 6, 20, 3)
                         for split in ("train", "test") for n in range(3)])  # fmt: skip
    options = {"resolution": (6, 10), "memory": memory}
    data = PairedFolder(str(tmp_path / "both" / "{split}"), direction=direction, **options)
    expected = unit(whole[:3, :, :, :10]), unit(whole[:3, :, :, 10:])
    found = pairs(data)
    for place in (0, 1):
        torch.testing.assert_close(found[place ^ left], expected[place])
    torch.testing.assert_close(pairs(data, "test")[left], unit(whole[3:, :, :, :10]))
    for n, image in enumerate(whole[:3]):
        for name, half, suffix in (("a", image[:, :, :10], "png"), ("b", image[:, :, 10:], "bmp")):
            (tmp_path / name).mkdir(exist_ok=True)
            array = half.permute(1, 2, 0).numpy().astype(np.uint8)
            Image.fromarray(array).save(tmp_path / name / f"{n}.{suffix}")
    folders = [str(tmp_path / name) for name in "ab"]
    again = PairedFolder(folders[left], folders[1 - left], **options)
    assert again.splits == ("train",)
    assert all(torch.equal(*each) for each in zip(pairs(again), found, strict=True))


def test_a_half_takes_nothing_from_the_other_when_it_is_resized(tmp_path):
    array = np.zeros((32, 64), np.uint8)
    array[:, 32:] = 255
    Image.fromarray(array).save(tmp_path / "0.png")
    data = PairedFolder(str(tmp_path), resolution=8, channels=1, condition_channels=1)
    real, condition = pairs(data)
    assert (real == 1).all() and (condition == -1).all()


@pytest.mark.parametrize("half", [False, True])
def test_crops_are_the_same_part_of_both(half, tmp_path):
    """Also where the condition is a half as high and wide."""
    for n in range(4):
        array = RANDOM.integers(0, 256, (9, 12), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
        for name, pixels in (("a", array), ("b", array[::2, ::2] if half else array)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"{n}.png")
    data = PairedFolder(
        str(tmp_path / "a"), str(tmp_path / "b"), resolution=(18, 24), crop=(8, 12), channels=1, batch_size=4,
        condition_resolution=(9, 12) if half else None, condition_channels=1, flip=True,
    )  # fmt: skip
    assert data.condition == (1, 4, 6) if half else (1, 8, 12)
    shown = [
        (real.clone(), condition.clone()) for _ in range(4) for real, condition in data.train_dataloader()
    ]
    for real, condition in [*shown, *data.real_batches(4)]:
        assert real.shape == (4, 1, 8, 12)
        larger = condition.repeat_interleave(2, 2).repeat_interleave(2, 3) if half else condition
        assert torch.equal(real, larger)
    stored = data.load()
    seen = [data.augment_pair(*stored, Noise(0, n, 0, 4))[0] for n in range(40)]
    assert len(torch.cat(seen).flatten(1).unique(dim=0)) > 60  # of 4 * 6 * 7 or 11 * 13


def test_transparency_and_16_bits_are_kept(tmp_path):
    clear = save(tmp_path / "a" / "0.png", 6, 8, 4)
    deep = save(tmp_path / "b" / "0.png", 6, 8, dtype=np.uint16)
    data = PairedFolder(
        str(tmp_path / "a"), str(tmp_path / "b"), resolution=(6, 8), channels=4, condition_channels=1,
        condition_value_range=(0, 65_535),
    )  # fmt: skip
    real, condition = pairs(data)
    torch.testing.assert_close(real[0], unit(clear))
    torch.testing.assert_close(condition[0], unit(deep, 65_535))
    opacity = clear[3:] / 255
    drawn = data.decode(real).pixels[0].float()
    torch.testing.assert_close(drawn, clear[:3] * opacity + 255 * (1 - opacity), rtol=0, atol=0.51)
    assert len(data.decode_condition(condition)) == 1


def test_a_condition_of_one_s_own_keeps_its_size(tmp_path):
    own = save(tmp_path / "own.png", 7, 5, 3)
    data = PairedFolder(str(tmp_path), resolution=8, crop=4)
    torch.testing.assert_close(data.read_condition(tmp_path / "own.png"), unit(own))
    with pytest.raises(ValueError, match=r"none.png"):
        data.read_condition(tmp_path / "none.png")


def test_pairs_that_do_not_match_are_named(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for path in (a / "0.png", a / "1.png", b / "0.jpg", b / "2.png"):
        save(path, 8, 8, 3)

    def load(**options):
        return PairedFolder(str(a), str(b), resolution=8, **options).load()

    with pytest.raises(ValueError, match=r"^Pairs do not match: .*a/1.png .*b/1.\*, .*b/2.png .*a/2.\*;"):
        load()
    (b / "2.png").rename(b / "1.png")
    load()
    save(b / "1.png", 8, 10, 3)
    with pytest.raises(
        ValueError, match=r"a/1.png has 8 x 8 pixels .* b/1.png has 8 x 10".replace(" b", ".*b")
    ):
        load()
    save(b / "1.jpg", 8, 8, 3)
    with pytest.raises(ValueError, match=r"b/1.jpg and .*b/1.png have one name"):
        load()
    (b / "1.jpg").unlink()
    save(b / "1.png", 8, 8)
    with pytest.raises(ValueError, match=r"b/1.png has 1 channel and data.condition_channels is 3"):
        load()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"crop": 12, "resolution": 8}, r"data.crop is \[12, 12\]"),
        ({"crop": 3, "resolution": 8, "condition_resolution": 4}, r"\[3, 3\] .* multiples of \[2, 2\]"),
        ({"condition_channels": 5}, "data.condition_channels must be"),
        ({"condition_value_range": (1, 0)}, "data.condition_value_range"),
        ({"num_classes": 3}, "leave num_classes 3 out"),
    ],
)
def test_options_out_of_range_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        PairedFolder("x", **options)
