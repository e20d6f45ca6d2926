"""A few of the training samples of a data set, for games on little data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from contract import refuses
from PIL import Image

from litgan.data import Derived, Digits, GANDataModule, Identity, ImageFolder, Ring, Subset
from litgan.data.loader import gather
from litgan.render import PointBatch


class Counted(GANDataModule):
    """Sample i is i, its class i % 3; ten for training, four for testing."""

    splits = ("train", "test")

    def __init__(self) -> None:
        super().__init__((2,), num_classes=3)

    def read(self, split: str) -> tuple[torch.Tensor, torch.Tensor]:
        numbers = torch.arange(10 if split == "train" else 4)
        return numbers[:, None].repeat(1, 2).float(), numbers % 3

    def encode(self, stored: torch.Tensor) -> torch.Tensor:
        return stored

    def decode(self, samples: torch.Tensor) -> PointBatch:
        return PointBatch(samples)


def test_the_draw_is_fixed_has_no_sample_twice_and_grows() -> None:
    chosen = [set(Subset(Counted(), count).load()[0][:, 0].tolist()) for count in (1, 4, 7, 10)]
    assert [len(numbers) for numbers in chosen] == [1, 4, 7, 10]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]
    assert chosen[1] == set(Subset(Counted(), 4, seed=5, batch_size=2).load()[0][:, 0].tolist())
    assert chosen[2] != set(range(7)), "the first of a sorted folder would all be of one class"


def test_each_keeps_its_class_and_the_held_out_split_is_whole() -> None:
    data = Subset(Counted(), 6)
    samples, labels = data.load()
    assert labels is not None and torch.equal(samples[:, 0].long() % 3, labels) and data.num_classes == 3
    assert data.size("test") == 4 and data.splits == ("train", "test")
    assert data.fingerprint != Subset(Counted(), 7).fingerprint != Counted().fingerprint
    assert data.fingerprint_of("test") == Counted().fingerprint_of("test")


@pytest.mark.parametrize("memory", ["host", "disk"])
def test_files_are_chosen_alike_wherever_they_are_kept(
    memory: Literal["host", "disk"], tmp_path: Path
) -> None:
    for index in range(8):
        pixels = np.full((6, 8, 3), 10 * index, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    data = Subset(ImageFolder(str(tmp_path), resolution=(6, 8), crop=(4, 4)), 5, memory=memory)
    values = [int(gather(data.load()[0], torch.tensor([row])).unique()) // 10 for row in range(5)]
    expected = Subset(ImageFolder(str(tmp_path), resolution=(6, 8)), 5).load()[0][:, 0, 0, 0] // 10
    assert values == expected.tolist() and len(set(values)) == 5
    assert data.read_sample(tmp_path / "3.png").shape[0] == 3


@pytest.mark.parametrize("outside", [True, False])
def test_a_condition_made_of_the_sample_is_varied_with_it(outside: bool, tmp_path: Path) -> None:
    """Whether the subset is taken of the pairs or the pairs are made of the subset."""
    random = np.random.default_rng(0)
    for index in range(6):
        pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    images = ImageFolder(str(tmp_path), resolution=8, crop=5)
    pairs: GANDataModule = Subset(Derived(images, Identity()), 4, batch_size=4)
    if not outside:
        pairs = Derived(Subset(images, 4), Identity(), batch_size=4)
    assert pairs.condition == (3, 5, 5)
    batches = [*pairs.train_dataloader(), *pairs.real_batches(4)]
    assert len(batches) == 2
    for real, condition in batches:
        assert real.shape == (4, 3, 5, 5) and torch.equal(real, condition)


def test_what_extractors_ask_of_the_whole_data_is_answered() -> None:
    data = Subset(Digits(resolution=16), 100)
    assert data.resolution == 16 and len(data.class_names) == 10
    with pytest.raises(AttributeError, match="sample_rate"):
        _ = data.sample_rate


def test_what_does_not_fit_is_named() -> None:
    refuses(lambda: Subset(Counted(), 11).load(), "takes 11 samples, but Counted has 10")
    refuses(lambda: Subset(Counted(), 0), "samples")
    refuses(lambda: Subset(Ring(), 5, num_classes=3), "Subset .* leave num_classes 3 out")
