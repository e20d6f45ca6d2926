from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from litgan import files
from litgan.files import PARTIAL, atomic_write, ignore_disk_errors, writing_output


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
        (errno.EDQUOT, "make room there"),
        (errno.EACCES, "allow writing there"),
        (errno.EIO, "choose another place"),
    ],
)
def test_the_remedy_of_a_failed_write_is_that_of_its_cause(number, remedy, capsys, monkeypatch) -> None:
    monkeypatch.setattr(files, "unwritten", set())
    with ignore_disk_errors("The picture"):
        raise OSError(number, os.strerror(number))
    assert f"The picture cannot be written ({os.strerror(number)}): {remedy}" in capsys.readouterr().err


@pytest.mark.parametrize("folder", [True, False])
def test_what_is_in_the_way_is_named(folder: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path if folder else tmp_path / "file" / "new" / "report.html"
    culprit = tmp_path if folder else tmp_path / "file"
    with (
        pytest.raises(OSError, match=rf"cannot be written \(.*: {culprit}\): move that away"),
        writing_output(path),
        atomic_write(path) as partial,
    ):
        partial.write_text("page")


MOUNT = 'mount -t tmpfs -o "$2" none "$1"'
SAVE = f"""
import sys
from pathlib import Path
import torch
from {files.__name__.partition(".")[0]} import checkpoints, export, files

path, network = Path(sys.argv[1], "new.file"), torch.nn.Linear(1000, 1000)
try:
    checkpoints.AtomicCheckpointIO().save_checkpoint(network.state_dict(), path)
except OSError as error:
    print(error)
with files.writing_output(path):
    export.save_generator(network, {{}}, 0, path)
"""


@pytest.mark.spawn
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("size=1m", "(No space left on device): make room there"),
        ("size=9m,ro", "(Read-only file system): allow writing there"),
    ],
)
def test_a_disk_that_is_full_or_read_only(options: str, sentence: str, tmp_path: Path) -> None:
    """A file system of its own, which only a process in its own namespace sees."""

    def run(script: str) -> subprocess.CompletedProcess[str]:
        command = ["unshare", "-Urm", "sh", "-ec", f"{MOUNT}; {script}", "", str(tmp_path), options]
        return subprocess.run(command, capture_output=True, text=True)

    if not shutil.which("unshare") or run("true").returncode:
        pytest.skip("no file system can be mounted here")
    result = run(f"exec {sys.executable} -c '{SAVE}' $1")
    assert f"new.file cannot be saved {sentence}; what was saved" in result.stdout
    assert f"new.file cannot be written {sentence}, or give another --out" in result.stderr
