from __future__ import annotations

import errno
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from litgan import runs
from litgan.runs import RunFolder, find_checkpoint, new_run, run_of


def put(path, images_seen: int, age: int):
    """A checkpoint that was written `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "litgan": {"images_seen": images_seen}}, path)
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def test_a_run_folder_names_its_recipe_and_run(tmp_path):
    folder = new_run(tmp_path, "digits")
    assert folder.path == tmp_path / "digits" / folder.run_id and folder.recipe == "digits"
    assert not folder.path.exists()
    folder.create()
    folder.create()
    assert folder.path.is_dir()


def test_processes_of_one_run_share_its_folder_and_other_runs_do_not(tmp_path, monkeypatch):
    first = new_run(tmp_path, "ring")
    assert new_run(tmp_path, "ring") == first  # a child inherits the environment
    monkeypatch.delenv("LITGAN_RUN_ID")
    assert new_run(tmp_path, "ring") != first


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "digits").write_text("a file")
    with pytest.raises(OSError, match=r"cannot be made \(Not a directory\): give another place"):
        RunFolder(tmp_path / "digits" / "run").create()


def test_too_little_space(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(OSError, match=r"Only 5 MiB are free for the run folder .*: make it 256 MiB, or give"):
        RunFolder(tmp_path / "run").create()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=runs.NEEDED_BYTES))
    RunFolder(tmp_path / "run").create()


def test_a_disk_that_is_full_already(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    with pytest.raises(OSError, match=r"run folder .* cannot be made \(No space left on device\): give"):
        RunFolder(tmp_path / "run").create()


def test_last_is_the_newest_readable_checkpoint_of_the_recipe(tmp_path, capsys):
    """Of runs, and within a run, what was written last, whatever it has seen."""
    put(tmp_path / "ring" / "b" / "checkpoints" / "best.ckpt", 90, age=300)
    last = put(tmp_path / "ring" / "b" / "checkpoints" / "last.ckpt", 10, age=200)
    new = put(tmp_path / "ring" / "a" / "checkpoints" / "last.ckpt", 20, age=100)
    put(tmp_path / "ring" / "a" / "checkpoints" / "best.ckpt", 20, age=100)
    broken = put(tmp_path / "ring" / "c" / "checkpoints" / "last.ckpt", 30, age=0)
    put(tmp_path / "digits" / "d" / "checkpoints" / "last.ckpt", 40, age=0)
    broken.write_bytes(broken.read_bytes()[:100])
    broken.with_name(".last.ckpt.7.partial").write_bytes(new.read_bytes())
    assert find_checkpoint("last", tmp_path, "ring") == new
    said = capsys.readouterr().err
    assert said.startswith(f"litgan: The checkpoint {broken} cannot be read")
    assert said.endswith("It is passed over.\n") and said.count("\n") == 1
    spare = put(broken.with_name("best.ckpt"), 5, age=400)
    assert find_checkpoint("last", tmp_path, "ring") == spare, "its run wrote last"
    shutil.rmtree(tmp_path / "ring" / "c")
    shutil.rmtree(tmp_path / "ring" / "a")
    assert find_checkpoint("last", tmp_path, "ring") == last
    shutil.rmtree(tmp_path / "ring" / "b")
    with pytest.raises(FileNotFoundError, match=r"No run in .*ring has a checkpoint to resume from: start"):
        find_checkpoint("last", tmp_path, "ring")


def test_a_slurm_step_and_the_environment_name_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert not new_run(tmp_path, "ring").run_id.startswith("slurm")  # sbatch without srun
    monkeypatch.delenv("LITGAN_RUN_ID")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert new_run(tmp_path, "ring").run_id == "slurm-4711-0"
    monkeypatch.setenv("LITGAN_RUN_ID", "mine")
    assert new_run(tmp_path, "ring").run_id == "mine"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    folder = RunFolder(tmp_path / "ring" / "a")
    kept = put(folder.path / "checkpoints" / "last.ckpt", 10, age=0)
    names = ("checkpoints/.last.ckpt.7.partial", ".metrics.csv.partial", "samples/.000000064.png.partial")
    for name in names:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_bytes(b"half")
    folder.create()
    assert [path for path in folder.path.rglob("*") if path.is_file()] == [kept]


def test_a_path_is_taken_as_it_is_once_it_can_be_read(tmp_path):
    path = put(tmp_path / "x" / "some.ckpt", 10, age=0)
    assert find_checkpoint(str(path), tmp_path, "ring") == path
    with pytest.raises(FileNotFoundError, match="There is no checkpoint at"):
        find_checkpoint(str(tmp_path / "other.ckpt"), tmp_path, "ring")
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        find_checkpoint(str(path), tmp_path, "ring")


def test_a_checkpoint_knows_its_run(tmp_path, monkeypatch):
    run = tmp_path / "ring" / "a"
    path = put(run / "checkpoints" / "last.ckpt", 10, age=0)
    assert run_of(path) == RunFolder(run)
    monkeypatch.chdir(path.parent)
    assert run_of(path.relative_to(path.parent)) == RunFolder(run)  # given by a relative path
    assert run_of(tmp_path / "elsewhere" / "last.ckpt") is None
