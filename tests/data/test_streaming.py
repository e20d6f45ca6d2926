"""Tables of `datasets` and shards of WebDataset give the images, labels and batches of their folder."""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shared.resuming import same

from litgan.data import ArrowImages, ImageFolder, ShardImages, index
from litgan.data.image_files import ImageFiles
from litgan.data.pack import write_pack

OPTIONS: dict[str, Any] = {"resolution": 16, "num_classes": 10, "batch_size": 4, "flip": True}


def arrow(pictures: Path, out: Path) -> ArrowImages:
    datasets = pytest.importorskip("datasets")
    files = sorted(pictures.rglob("*.png"))
    table = datasets.Dataset.from_dict(
        {"image": list(map(str, files)), "label": [int(one.parent.name) for one in files]}
    )
    table = table.cast_column("image", datasets.Image()).cast_column("label", datasets.ClassLabel(10))
    datasets.DatasetDict({"train": table, "test": table.select([3, 1])}).save_to_disk(out)
    return ArrowImages(str(out), **OPTIONS)


def shards(pictures: Path, out: Path) -> ShardImages:
    """As `webdataset.ShardWriter` writes them, of five samples each, with a member that is not asked for."""
    for number, file in enumerate(sorted(pictures.rglob("*.png"))):
        out.mkdir(exist_ok=True)
        with tarfile.open(out / f"train-{number // 5:06}.tar", "a") as shard:
            parts = {"png": file.read_bytes(), "cls": file.parent.name.encode(), "json": b"{}"}
            for suffix, content in parts.items():
                member = tarfile.TarInfo(f"{number:09}.{suffix}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    return ShardImages(str(out), **OPTIONS)


KINDS = pytest.mark.parametrize("make", [arrow, shards])


@KINDS
def test_batches_are_those_of_the_folder_also_after_a_resume(make: Callable[..., Any], pictures, tmp_path):
    stored, folder = make(pictures, tmp_path / "all"), ImageFolder(str(pictures), memory="disk", **OPTIONS)
    stored.memory = "disk"
    assert isinstance(stored.load()[0], ImageFiles)
    assert same(list(stored.train_dataloader()), list(folder.train_dataloader()))
    stored._images_seen = lambda: 8  # as in the middle of an epoch
    assert same(list(stored.train_dataloader()), list(folder.train_dataloader())[2:])
    assert same(list(stored.real_batches(12)), list(folder.real_batches(12)))
    assert stored.class_names == folder.class_names and str(stored.files["train"]) == " of 12 files"
    plain = type(stored)(str(tmp_path / "all"), resolution=16)
    assert plain.num_classes == 0 and plain.fingerprint != stored.fingerprint


@pytest.mark.spawn
@KINDS
def test_workers_read_them(make: Callable[..., Any], pictures, tmp_path):
    stored = make(pictures, tmp_path / "all")
    stored.memory = "disk"
    alone = list(stored.train_dataloader())
    stored.num_workers = 2
    assert same(list(stored.train_dataloader()), alone)


@KINDS
def test_they_are_checked_once_and_packed(make: Callable[..., Any], pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(index, "LARGE", 0)
    monkeypatch.setattr(index, "TICK", 0)
    first = make(pictures, tmp_path / "all")
    (samples, labels), *_ = map(first.load, first.splits)
    monkeypatch.setattr(ImageFiles, "bits", None)  # is not called
    assert same(type(first)(str(tmp_path / "all"), **OPTIONS).load(), (samples, labels))
    write_pack(lambda root: type(first)(root, **OPTIONS), str(tmp_path / "all"), tmp_path / "pack")
    packed = type(first)(str(tmp_path / "pack"), **OPTIONS)
    assert packed.splits == first.splits and same(packed.load(), (samples, labels))
    assert packed.fingerprint == first.fingerprint


def test_splits_columns_and_labels(pictures, tmp_path):
    tables = arrow(pictures, tmp_path / "all")
    assert tables.splits == ("train", "test") and tables.load("test")[1].tolist() == [1, 0]
    for options, culprit in (({"image": "img"}, "'img'"), ({"num_classes": 3}, "10 classes")):
        with pytest.raises(ValueError, match=culprit):
            ArrowImages(str(tmp_path / "all"), resolution=16, **options).load()
    with pytest.raises(FileNotFoundError, match="save_to_disk"):
        ArrowImages(str(pictures), resolution=16).load()
    unlabeled = sys.modules["datasets"].load_from_disk(str(tmp_path / "all"))["train"].remove_columns("label")
    unlabeled.save_to_disk(str(tmp_path / "one"))
    one = ArrowImages(str(tmp_path / "one"), resolution=16)
    assert one.splits == ("train",) and one.load()[1] is None


def test_what_cannot_be_read_is_named(pictures, tmp_path):
    shards(pictures, tmp_path / "all")
    with pytest.raises(ValueError, match=r"000000000\.png has no train-000000.tar/000000000\.id"):
        ShardImages(str(tmp_path / "all"), label="id", **OPTIONS).load()
    (tmp_path / "all" / "train-000000.tar").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="uncompressed"):
        ShardImages(str(tmp_path / "all"), **OPTIONS).load()
    with pytest.raises(FileNotFoundError, match="absent"):
        ShardImages(str(tmp_path / "absent"), **OPTIONS).load()
