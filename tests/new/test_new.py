"""A new project: its files, its names, its one commit, and what is refused. `make wings` runs its tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from shared.repository import needs_repository

from litgan import cli
from litgan.new import PACKAGE, ROOT, WINGS, tracked_files

pytestmark = needs_repository


def git(tree: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=tree, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("projects") / "project"
    cli.main(["new", str(tree), "--name", "mygan", "--wings", "sound,lab"])
    return tree


def test_one_commit_holds_everything(project: Path) -> None:
    assert git(project, "status", "--porcelain") == ""
    assert len(git(project, "log", "--format=%s").splitlines()) == 1


def test_the_old_name_is_left_in_the_licence_and_in_one_line(project: Path) -> None:
    files = git(project, "grep", "-ic", PACKAGE).splitlines()
    assert sorted(files) == ["LICENSE:1", "README.md:1"]
    assert not [path for path in project.rglob("*") if PACKAGE in path.name]
    assert (project / "README.md").read_text().startswith("# mygan\n")


def test_it_has_the_wings_that_were_asked_for(project: Path) -> None:
    for folder in ("src/mygan", "configs", "tests", "notebooks", "benchmarks"):
        assert not [wing for wing in {*WINGS, "new"} - {"sound", "lab"} if (project / folder / wing).exists()]
    assert (project / "src/mygan/sound").is_dir() and (project / "configs/sound").is_dir()
    assert not (project / ".ci").exists() and not (project / "benchmarks/RESULTS.md").exists()
    for mark in ("wing: new", "wing: zoo", "make wings"):
        assert mark not in "".join((project / name).read_text() for name in ("README.md", "Makefile"))
    assert "wings" not in yaml.safe_load((project / ".github/workflows/ci.yml").read_text())["jobs"]


@pytest.mark.heavy
def test_its_own_commands_and_names_work(project: Path) -> None:
    code = (
        "import mygan, mygan.sound, mygan.lab\n"
        "from mygan import cli; from mygan.metrics import load_extractor\n"
        "print(load_extractor('digits').name, *cli.VERBS)"
    )
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("digits ") and "lab" in done.stdout and "new" not in done.stdout.split()


def test_it_is_formatted(project: Path) -> None:
    for arguments in (("check",), ("format", "--check")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "."], cwd=project, capture_output=True
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "wings", "culprit"),
    [
        ("", "", "''"), ("My-GAN", "", "My-GAN"), ("class", "", "class"), ("torch", "", "torch"),
        ("random", "", "random"), ("litgan", "", "litgan"), ("tests", "", "tests"),
        ("mygan", "sound,cinema", "cinema"),
    ],
)  # fmt: skip
def test_what_is_refused_writes_nothing(
    name: str, wings: str, culprit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["new", str(tmp_path / "project"), "--name", name, "--wings", wings])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 1 and len(lines) == 1 and culprit in lines[0]
    assert not any(tmp_path.iterdir())


def test_a_folder_with_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("mine = 1\n")
    with pytest.raises(SystemExit):
        cli.main(["new", str(tmp_path), "--name", "mygan"])
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository of its own with this one's files, as GitHub's "Use this template" gives it."""
    tree = tmp_path / "clone"
    for name in tracked_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "-c", "user.name=me", "-c", "user.email=me@localhost", "commit", "-qm", "Initial commit")
    return tree


def in_place(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the clone's own `litgan new .`, as `make new` does."""
    return subprocess.run(
        [sys.executable, "-m", PACKAGE, "new", ".", *arguments], cwd=clone, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(clone / "src")},
    )  # fmt: skip


@pytest.mark.spawn
def test_in_place_it_renames_once_what_is_committed(clone: Path) -> None:
    (clone / "mine.py").write_text("mine = 1\n")
    refused = in_place(clone, "--name", "mygan", "--wings", "text")
    assert refused.returncode == 1 and "commit" in refused.stderr and (clone / f"src/{PACKAGE}").is_dir()
    (clone / "mine.py").unlink()
    done = in_place(clone, "--name", "mygan", "--wings", "text")
    assert done.returncode == 0, done.stderr
    assert (
        len(git(clone, "log", "--format=%s").splitlines()) == 2 and git(clone, "status", "--porcelain") == ""
    )
    assert (clone / "src/mygan/text").is_dir() and not git(clone, "ls-files", f"src/{PACKAGE}")
    again = in_place(clone, "--name", "other")
    assert again.returncode != 0 and (clone / "src/mygan/text").is_dir()


@pytest.mark.spawn
def test_an_installation_without_its_repository_says_so(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / PACKAGE).symlink_to(ROOT / "src" / PACKAGE)
    code = f"import sys; from {PACKAGE} import new; new.ROOT = new.Path('.').resolve(); new.new('p', 'mygan')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "lib", capture_output=True, text=True)
    assert done.returncode == 1 and "clone" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "lib" / "p").exists()
