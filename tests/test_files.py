from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from litgan import files
from litgan.files import PARTIAL, atomic_write, ignore_disk_errors


def test_a_file_appears_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
        assert (
            partial.parent == path.parent and partial.name.startswith(".") and partial.name.endswith(PARTIAL)
        )
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_write(path) as first, atomic_write(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # whose block ended last
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.EACCES, "allow writing there"),
        (errno.EROFS, "allow writing there"),
        (errno.ENOTDIR, "look after that path"),
        (errno.EIO, "look after that path"),
    ],
)
def test_the_remedy_of_a_failed_write_is_that_of_its_cause(number, remedy, capsys, monkeypatch) -> None:
    monkeypatch.setattr(files, "unwritten", set())
    with ignore_disk_errors("The picture"):
        raise OSError(number, os.strerror(number))
    assert f"The picture cannot be written ({os.strerror(number)}): {remedy}" in capsys.readouterr().err
