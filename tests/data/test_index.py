"""Large folders and archives: found out once, and noticed when they change."""

from __future__ import annotations

import gc
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from litgan.data import ImageFolder, image_files, index
from litgan.data.image_files import ImageFiles


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all images whose headers are read; any folder is large, and any change long ago."""
    names: list[str] = []
    bits = ImageFiles.bits
    monkeypatch.setattr(ImageFiles, "bits", lambda self, name: names.append(name) or bits(self, name))
    monkeypatch.setattr(index, "LARGE", 0)
    monkeypatch.setattr(index, "TICK", 0)
    return names


@pytest.fixture
def folder(pictures: Path, tmp_path: Path) -> Path:
    """Links to `pictures`, in two subfolders of a subfolder."""
    for number, file in enumerate(sorted(pictures.rglob("*.png"))):
        link = tmp_path / "all" / "deep" / "ab"[number % 2] / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return tmp_path / "all"


@pytest.fixture
def archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*.png")):
            packed.write(file, file.relative_to(folder))
    return folder.with_suffix(".zip")


def loaded(root: Path, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    data = ImageFolder(str(root), resolution=8, num_classes=2, **options)
    return data.load()


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_images_are_listed_and_checked_once_for_all_processes(kind, opened, request, monkeypatch):
    root = request.getfixturevalue(kind)
    first = loaded(root)
    assert len(opened) == 12
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "find_files", None)  # is not called
        second = loaded(root)
    assert len(opened) == 12 and all(map(torch.equal, first, second))
    loaded(root, convert=True)  # asks something else
    assert len(opened) == 24


def add(folder: Path) -> None:
    (folder / "deep" / "a" / "new.png").symlink_to(next(folder.rglob("*.png")).resolve())


def add_below(folder: Path) -> None:
    (folder / "deep" / "empty" / "new").mkdir(parents=True)


def remove(folder: Path) -> None:
    next((folder / "deep" / "b").iterdir()).unlink()


def rename(folder: Path) -> None:
    file = next((folder / "deep" / "b").iterdir())
    file.rename(file.with_name("renamed.png"))


@pytest.mark.parametrize("change", [add, add_below, remove, rename])
def test_a_change_of_a_folder_is_noticed(change: Callable[[Path], None], opened, folder):
    (folder / "deep" / "empty").mkdir()
    loaded(folder)
    change(folder)
    samples, _ = loaded(folder)
    assert len(samples) == 12 + (change is add) - (change is remove) and len(opened) > 20


def test_what_changed_just_now_may_change_again_unnoticed_and_is_not_kept(opened, folder, monkeypatch):
    monkeypatch.setattr(index, "TICK", 10**12)
    for times in (1, 2):
        loaded(folder)
        assert len(opened) == 12 * times
    before = time.time_ns() - 2 * 10**12
    for each in (folder, *folder.rglob("*/")):
        os.utime(each, ns=(before, before))
    loaded(folder)
    loaded(folder)
    assert len(opened) == 36


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"version": 1}', b"\xff"])
def test_a_damaged_index_is_made_anew(damage, opened, folder):
    loaded(folder)
    index.Index(folder).path.write_bytes(damage)
    loaded(folder)
    loaded(folder)
    assert len(opened) == 24


def test_an_archive_has_no_object_for_each_member(archive):
    files = loaded(archive, memory="disk")[0]
    again = pickle.loads(pickle.dumps(files))
    assert torch.equal(again[5], files[5]) and again.fingerprint == files.fingerprint
    gc.collect()
    assert not any(type(one) is zipfile.ZipInfo for one in gc.get_objects())
