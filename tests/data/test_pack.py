"""A packed data set is the data set: the same batches, labels and fingerprint, mapped from a file."""

from __future__ import annotations

import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shared.pairs import Pairs
from shared.resuming import same

from litgan import cli
from litgan.data import ImageFolder
from litgan.data.pack import INDEX, write_pack
from litgan.data.paired import PairedFolder

OPTIONS: dict[str, Any] = {"resolution": 16, "num_classes": 10, "batch_size": 4, "flip": True}


def make(root: str) -> ImageFolder:
    return ImageFolder(root, **OPTIONS)


@pytest.fixture(scope="module")
def packed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pictures`, packed on the command line."""
    out = tmp_path_factory.mktemp("packed") / "pack"
    options = ["--data.resolution=16", "--data.num_classes=10", "--data.flip=true"]
    cli.main(["pack", str(pictures), str(out), *options])
    return out


def test_a_pack_gives_the_batches_labels_and_fingerprint_of_its_folder(pictures, packed):
    folder, pack = make(str(pictures)), make(str(packed))
    assert pack.fingerprint == folder.fingerprint and pack.signature == folder.signature
    assert pack.class_names == folder.class_names == list("0123456789")
    for (one, labels), (other, classes) in zip(
        folder.train_dataloader(), pack.train_dataloader(), strict=True
    ):
        assert torch.equal(one, other) and torch.equal(labels, classes)
    plain = ImageFolder(str(packed), resolution=16, memory="disk")
    assert plain.class_names is None and plain.load()[0].shape == (12, 3, 16, 16)
    assert json.loads((packed / "train_names.json").read_text())[0] == "0/0.png"
    assert [path.name for path in packed.parent.iterdir()] == ["pack"]


def test_splits_and_paired_folders_are_packed(pictures, tmp_path):
    for split, numbers in (("train", "01234"), ("test", "56789")):
        for number in numbers:
            (tmp_path / "all" / split / number).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "all" / split / number).symlink_to(pictures / number)
    root, out = str(tmp_path / "all" / "{split}"), str(tmp_path / "pack")
    paired = partial(PairedFolder, condition_resolution=8, resolution=16, crop=4, batch_size=4)
    write_pack(paired, root, Path(out))
    folder, pack = paired(root), paired(out)
    assert pack.splits == ("train", "test")
    for split in pack.splits:
        assert pack.fingerprint_of(split) == folder.fingerprint_of(split)
        assert same(list(pack.real_batches(5, split=split)), list(folder.real_batches(5, split=split)))
    assert same(list(pack.train_dataloader()), list(folder.train_dataloader()))
    with pytest.raises(ValueError, match="sizes"):
        PairedFolder(out, condition_resolution=16, resolution=32, crop=4).load()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no file lists what is mapped")
def test_a_pack_is_mapped_and_never_written(packed):
    samples, _ = make(str(packed)).load()
    mapped = [
        line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "train.npy" in line
    ]
    ((span, rights, *_),) = mapped
    first, end = (int(place, 16) for place in span.split("-"))
    assert first <= samples.data_ptr() < end and rights.startswith("r--s")


class Rooted(Pairs):
    """Pairs that could be read from a folder, and are made."""

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(**options)
        self.root = root


@pytest.mark.parametrize("options", [{"memory": "disk"}, {"made": True}], ids=["files", "own condition"])
def test_conditions_of_any_shape_are_packed(options, tmp_path):
    write_pack(partial(Rooted, **options), "", tmp_path / "pack")
    made, pack = Pairs(**options), Rooted(str(tmp_path / "pack"), **options)
    for split in made.splits:
        assert len(list(pack.real_batches(12, split=split))) == 1
        for one, other in zip(
            made.real_batches(12, split=split), pack.real_batches(12, split=split), strict=True
        ):
            assert same(one, other)
    assert same(list(made.train_dataloader()), list(pack.train_dataloader()))
    with pytest.raises(ValueError, match="class Rooted and the data set Other"):
        type("Other", (Rooted,), {})(pack.root).load()


def test_what_cannot_be_used_is_refused_when_it_is_packed(tmp_path):
    for name, value in (("a", 1.0), ("b", np.nan)):
        path = tmp_path / "deep" / f"{name}.tiff"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), value, np.float32)).save(path)
    deep = partial(ImageFolder, resolution=4, channels=1, value_range=(0, 1))
    with pytest.raises(ValueError, match=re.escape(str(path))):
        write_pack(deep, str(path.parent), tmp_path / "pack")
    assert [each.name for each in tmp_path.iterdir()] == ["deep"]


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"resolution": 8}, "resolution 16 and the data set 8"),
        ({"num_classes": 3}, "condition 10 and the data set 3"),
    ],
)
def test_other_data_than_what_was_packed_are_refused(change, culprit, packed):
    with pytest.raises(ValueError, match=culprit):
        ImageFolder(str(packed), **OPTIONS | change).load()


@pytest.mark.parametrize("damage", ["train.npy", "train_condition.npy", INDEX])
def test_a_damaged_pack_is_named(damage, pictures, tmp_path):
    write_pack(make, str(pictures), tmp_path / "pack")
    with pytest.raises(FileExistsError, match="pack"):
        write_pack(make, str(pictures), tmp_path / "pack")
    path = tmp_path / "pack" / damage
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=str(tmp_path / "pack")):
        make(str(tmp_path / "pack")).load()


def test_a_folder_that_is_full_is_named(pictures, tmp_path, complaint):
    (tmp_path / "file").touch()
    assert str(tmp_path / "file" / "out") in complaint("pack", pictures, tmp_path / "file" / "out")
