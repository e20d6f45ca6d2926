from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from litgan import runs
from litgan.checkpoints import FORMAT
from litgan.files import rename_damaged
from litgan.runs import Lock, RunFolder, find_checkpoint, new_run, run_of

needs_flock = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")


def put(path, images_seen: int, age: int):
    """A checkpoint that was written `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "litgan": {"format": FORMAT, "images_seen": images_seen}}, path)
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def test_a_run_folder_names_its_recipe_and_run(tmp_path, monkeypatch):
    folder = new_run(tmp_path, "digits")
    assert folder.path == tmp_path / "digits" / folder.run_id and folder.recipe == "digits"
    assert not folder.path.exists()
    folder.create()
    folder.create()
    assert folder.path.is_dir()
    assert new_run(tmp_path, "digits") == folder  # a child inherits the environment
    monkeypatch.delenv("LITGAN_RUN_ID")
    assert new_run(tmp_path, "digits") != folder


def test_a_folder_that_cannot_be_made_and_a_full_disk(tmp_path, monkeypatch):
    (tmp_path / "digits").write_text("a file")
    with pytest.raises(OSError, match=r"cannot be made \(Not a directory\): give another place"):
        RunFolder(tmp_path / "digits" / "run").create()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(OSError, match=r"Only 5 MiB are free for the run folder .*: make it 256 MiB, or give"):
        RunFolder(tmp_path / "run").create()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=runs.NEEDED_BYTES))
    RunFolder(tmp_path / "run").create()


def test_last_is_the_newest_readable_checkpoint_of_the_recipe(tmp_path, capsys):
    """Of runs, and within a run, what was written last, whatever it has seen."""
    put(tmp_path / "ring" / "b" / "checkpoints" / "best.ckpt", 90, age=300)
    last = put(tmp_path / "ring" / "b" / "checkpoints" / "last.ckpt", 10, age=200)
    new = put(tmp_path / "ring" / "a" / "checkpoints" / "last.ckpt", 20, age=100)
    put(tmp_path / "ring" / "a" / "checkpoints" / "best.ckpt", 90, age=100)  # at the same time
    put(tmp_path / "ring" / "a" / "checkpoints" / "last-000000090.ckpt", 90, age=0)  # kept, not continued
    broken = put(tmp_path / "ring" / "c" / "checkpoints" / "last.ckpt", 30, age=0)
    put(tmp_path / "digits" / "d" / "checkpoints" / "last.ckpt", 40, age=0)
    broken.write_bytes(broken.read_bytes()[:100])
    broken.with_name(".last.ckpt.7.partial").write_bytes(new.read_bytes())
    assert find_checkpoint("last", tmp_path, "ring") == new
    said = capsys.readouterr().err
    assert said.startswith(f"litgan: The checkpoint {broken} cannot be read")
    assert said.endswith("It is skipped.\n") and said.count("\n") == 1
    spare = put(broken.with_name("best.ckpt"), 5, age=400)
    assert find_checkpoint("last", tmp_path, "ring") == spare, "its run wrote last"
    shutil.rmtree(tmp_path / "ring" / "c")
    shutil.rmtree(tmp_path / "ring" / "a")
    assert find_checkpoint("last", tmp_path, "ring") == last
    for path in last.parent.iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(FileNotFoundError, match=r"No checkpoint in .*ring can be read: start"):
        find_checkpoint("last", tmp_path, "ring")
    capsys.readouterr()
    shutil.rmtree(tmp_path / "ring" / "b")
    assert find_checkpoint("last", tmp_path, "ring") is None
    assert "has a checkpoint yet: a new run starts" in capsys.readouterr().err


def test_the_newest_checkpoint_of_a_run_is_the_one_written_last(tmp_path, capsys):
    """However many images it has seen, and whichever its name."""
    folder = RunFolder(tmp_path / "ring" / "a")
    last, best = (folder.path / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    assert folder.newest_checkpoint() is None
    for newer, older in ((last, best), (best, last)):
        for seen in (10, 90):
            put(newer, seen, age=100)
            put(older, 50, age=200)
            assert folder.newest_checkpoint() == newer
        newer.write_bytes(newer.read_bytes()[: int(0.3 * newer.stat().st_size)])
        assert folder.newest_checkpoint() == older
    last.write_bytes(b"")
    best.write_bytes(b"")
    assert folder.newest_checkpoint() is None
    assert "It is skipped" in capsys.readouterr().err


def test_a_slurm_step_and_the_environment_name_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert not new_run(tmp_path, "ring").run_id.startswith("slurm")  # sbatch without srun
    monkeypatch.delenv("LITGAN_RUN_ID")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert new_run(tmp_path, "ring").run_id == "slurm-4711-0"
    monkeypatch.setenv("LITGAN_RUN_ID", "mine-1_2.b")
    assert new_run(tmp_path, "ring").run_id == "mine-1_2.b"
    for run_id in ("..", "a/b", "/tmp", "a b", "x" * 129):
        monkeypatch.setenv("LITGAN_RUN_ID", run_id)
        with pytest.raises(ValueError, match=r"^LITGAN_RUN_ID's run id .*\.$"):
            new_run(tmp_path, "ring")


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    folder = RunFolder(tmp_path / "ring" / "a")
    kept = put(folder.path / "checkpoints" / "last.ckpt", 10, age=0)
    names = ("checkpoints/.last.ckpt.7.partial", ".metrics.csv.partial", "samples/.000000064.png.partial")
    for name in names:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_bytes(b"half")
    folder.create()
    assert [path for path in folder.path.rglob("*") if path.is_file()] == [kept]


def test_a_path_is_taken_as_it_is_and_knows_its_run(tmp_path, monkeypatch):
    path = put(tmp_path / "ring" / "a" / "checkpoints" / "some.ckpt", 10, age=0)
    assert find_checkpoint(str(path), tmp_path, "digits") == path
    assert run_of(path) == RunFolder(tmp_path / "ring" / "a")
    monkeypatch.chdir(path.parent)
    assert run_of(path.relative_to(path.parent)) == RunFolder(tmp_path / "ring" / "a")
    assert run_of(tmp_path / "elsewhere" / "last.ckpt") is None
    path.write_bytes(b"nothing")
    for broken, error in ((path, ValueError), (tmp_path / "other.ckpt", FileNotFoundError)):
        with pytest.raises(error, match=broken.name):
            find_checkpoint(str(broken), tmp_path, "ring")


@pytest.fixture
def lock():
    """Makes locks, all released in the end."""
    made: list[Lock] = []

    def make() -> Lock:
        made.append(Lock())
        return made[-1]

    yield make
    for each in made:
        each.release()


@needs_flock
def test_a_folder_is_locked_for_one_and_changed_by_nobody(lock, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "PATIENCE", 0.3)
    folder = RunFolder(tmp_path / "ring" / "a")
    one, other = lock(), lock()
    one.acquire(folder)
    assert list(folder.path.iterdir()) == [], "a lock leaves no file"
    with pytest.raises(BlockingIOError, match=str(folder.path)):
        other.acquire(folder)
    other.acquire(RunFolder(tmp_path / "ring" / "b"))
    other.release()
    with pytest.raises(BlockingIOError, match=str(folder.path)):
        other.acquire(folder)
    (folder.path / "config.yaml").touch()
    one.release()
    other.acquire(folder)
    assert (folder.path / "config.yaml").exists()


@needs_flock
def test_a_folder_that_was_made_for_nothing_goes_with_its_lock(lock, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "PATIENCE", 5.0)
    root = tmp_path / "runs"
    one, other = lock(), lock()
    one.acquire(RunFolder(root / "ring" / "a"))
    waiting = threading.Thread(target=other.acquire, args=(RunFolder(root / "ring" / "a"),))
    waiting.start()
    time.sleep(0.5)
    one.release()
    waiting.join()
    assert (root / "ring" / "a").is_dir(), "made again by who waited for it"
    monkeypatch.setattr(runs, "PATIENCE", 0.0)
    with pytest.raises(BlockingIOError):
        one.acquire(RunFolder(root / "ring" / "a"))
    other.release()
    assert not root.exists() and tmp_path.exists()


def hold(folder: RunFolder, seconds: float, ready, worker_too: bool) -> None:
    """In a process of its own: locks the folder for so long, in the middle of which it forks a worker."""
    held = Lock()
    held.acquire(folder)
    if worker_too and os.fork() == 0:  # lives on as a data worker does
        time.sleep(30)
        os._exit(0)
    ready.set()
    time.sleep(seconds)


@needs_flock
@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.spawn
def test_who_has_ended_holds_nothing(killed, lock, tmp_path, monkeypatch):
    """A process that was killed, though its worker still lives; and one that ends while we wait."""
    monkeypatch.setattr(runs, "PATIENCE", 0.0 if killed else 60.0)
    folder, fork = RunFolder(tmp_path / "ring" / "a"), multiprocessing.get_context("fork")
    ready = fork.Event()
    process = fork.Process(target=hold, args=(folder, 30 if killed else 1, ready, killed))
    process.start()
    assert ready.wait(60)
    if killed:
        with pytest.raises(BlockingIOError):
            lock().acquire(folder)
        process.kill()
        process.join()
    lock().acquire(folder)
    process.join()


@needs_flock
def test_a_file_system_without_locks(lock, tmp_path, monkeypatch, capsys):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(runs.fcntl, "flock", none)
    for _ in range(2):
        lock().acquire(RunFolder(tmp_path / "ring" / "a"))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and all(str(tmp_path / "ring" / "a") in line for line in said)


@pytest.mark.parametrize(("rank", "machine"), [(1, "0"), (0, "1")])
def test_rank_zero_alone_locks(rank, machine, lock, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "ring" / "a")
    lock().acquire(folder)
    monkeypatch.setattr(runs.rank_zero_only, "rank", rank)
    monkeypatch.setenv("NODE_RANK", machine)
    lock().acquire(folder)  # at once, and without complaint


def test_what_is_damaged_is_set_aside_under_a_name_that_is_free(tmp_path, capsys):
    path = tmp_path / "metrics.csv"
    for content in ("one", "two"):
        path.write_text(content)
        rename_damaged(path)
    path.mkdir()
    rename_damaged(path)
    assert sorted(each.name for each in tmp_path.iterdir()) == [f"metrics.damaged-{i}.csv" for i in (1, 2, 3)]
    assert [(tmp_path / f"metrics.damaged-{i}.csv").read_text() for i in (1, 2)] == ["one", "two"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and all(
        f"metrics.damaged-{i}.csv" in line for i, line in zip((1, 2, 3), said, strict=True)
    )
