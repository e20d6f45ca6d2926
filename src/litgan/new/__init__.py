"""A project of one's own, made from this repository: renamed, and only with the wings that are wanted.

A wing WING owns src/litgan/WING, the folders WING in configs, tests, notebooks and benchmarks, and
docs/WING.md. Elsewhere it owns the lines that end with `wing: WING` in a comment, and what stands between a
line that holds nothing else and `end: WING`. What only this repository needs belongs to the wing `new`.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
ROOT = Path(__file__).resolve().parents[3]
WINGS = ("zoo", "translation", "text", "sound", "music", "lab", "diagnosis")
OWN = ("new", [".ci", "benchmarks/RESULTS.md"])  # a wing's name, and what else it owns
FOLDERS = (f"src/{PACKAGE}", "configs", "tests", "notebooks", "benchmarks")
MARKED = (
    "*.md",
    "docs/*.md",
    "configs/**/*.yaml",
    "benchmarks/*.py",
    "pyproject.toml",
    "Makefile",
    "constraints.txt",
    ".github/**/*.yml",
    ".github/*.md",
)


def new(dir: str, name: str = "", wings: str = "") -> None:
    """Makes a project of your own: a renamed copy of this repository with the core and the wings you name.

    Args:
        dir: folder to make; "." renames this repository itself, whose changes must be committed.
        name: of the package, e.g. mygan.
        wings: parts to keep, with commas between: zoo, translation, text, sound, music, lab, diagnosis;
            or all.
    """
    target, chosen = Path(dir).resolve(), choose_wings(wings)
    check_name(name)
    files = tracked_files()
    in_place = target == ROOT
    if in_place and git(ROOT, "status", "--porcelain"):
        raise ValueError(f"{ROOT} has changes that are not committed: commit them first.")
    if not in_place and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} exists and is not empty: give another folder.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        tree = Path(temporary) / name
        copy(files, tree)
        for wing in (OWN[0], *(wing for wing in WINGS if wing not in chosen)):
            delete(tree, wing)
        rename(tree, name)
        formatted = tidy(tree)
        if in_place:
            git(ROOT, "rm", "-rq", ".")
            shutil.copytree(tree, ROOT, dirs_exist_ok=True)
        else:
            git(tree, "init", "-q", "-b", "main")
            shutil.copytree(tree, target, dirs_exist_ok=True)
    commit(target, f"Start {name} from {PACKAGE}")
    print(f"{name} is in {target}, with {', '.join(['the core', *chosen])}: cd {dir} && make train")
    if not formatted:
        print("ruff is not installed here: run `make format` there, since the new name is of another length.")


def choose_wings(wings: str) -> list[str]:
    """The wings of a list with commas, "all" for each of them."""
    chosen = [wing.strip() for wing in wings.split(",") if wing.strip()]
    if chosen == ["all"]:
        return [*WINGS]
    if unknown := [wing for wing in chosen if wing not in WINGS]:
        raise ValueError(f"There is no wing {unknown[0]}: give some of {', '.join(WINGS)}, or all.")
    return [wing for wing in WINGS if wing in chosen]


def check_name(name: str) -> None:
    """Refuses what cannot be a package, or would hide one that exists.

    Raises ValueError: naming the remedy.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"{name!r} is no name for a package: use small letters, digits and _, e.g. mygan.")
    folders = {path.name for path in ROOT.iterdir()}
    if name in sys.stdlib_module_names or name in folders or importlib.util.find_spec(name) is not None:
        raise ValueError(f"The name {name} is taken by another package or folder: give another one.")


def tracked_files() -> list[str]:
    """Paths of this repository's files, relative to its root.

    Raises ValueError if this is an installation without its repository.
    """
    if not (ROOT / "pyproject.toml").is_file() or not (ROOT / ".git").exists():
        raise ValueError(
            f"This {PACKAGE} was installed without its repository: clone that, and run this there."
        )
    return [name for name in git(ROOT, "ls-files", "-z").split("\0") if name and (ROOT / name).exists()]


def copy(files: Iterable[str], tree: Path) -> None:
    """Copies files of this repository into a tree."""
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)


def delete(tree: Path, wing: str) -> None:
    """Deletes a wing and what it owns from a tree of this project."""
    owned = [f"{folder}/{wing}" for folder in FOLDERS] + [f"docs/{wing}.md"]
    for name in owned + (OWN[1] if wing == OWN[0] else []):
        path = tree / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    comment = rf"(?:<!-- {{}}: {wing} -->|# {{}}: {wing})\n"
    block = re.compile(f"^ *{comment.format('wing', 'wing')}.*?{comment.format('end', 'end')}", re.S | re.M)
    line = re.compile(f"^.*{comment.format('wing', 'wing')}", re.M)
    for path in {path for pattern in MARKED for path in tree.glob(pattern)}:
        path.write_text(line.sub("", block.sub("", path.read_text())))


def rename(tree: Path, name: str) -> None:
    """Gives the package of a tree another name, wherever it is written, and says where it comes from."""
    for path in sorted(tree.rglob("*")):
        if not path.is_file() or path.name == "LICENSE":
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # pictures, weights
            continue
        path.write_text(text.replace(PACKAGE, name).replace(PACKAGE.upper(), name.upper()), encoding="utf-8")
    (tree / "src" / PACKAGE).rename(tree / "src" / name)
    readme = tree / "README.md"
    readme.write_text(readme.read_text() + f"\nMade from {PACKAGE}, a template for adversarial training.\n")


def tidy(tree: Path) -> bool:
    """Sorts imports and breaks lines anew, for the name's length changed; False where ruff is missing."""
    if importlib.util.find_spec("ruff") is None:
        return False
    settings = tree / "pyproject.toml"  # a longer name makes lines of text longer, which no formatter breaks
    settings.write_text(settings.read_text().replace("\nignore = [\n", '\nignore = [\n  "E501",\n', 1))
    for arguments in (("check", "--fix-only", "-q", "."), ("format", "-q", ".")):
        subprocess.run([sys.executable, "-m", "ruff", *arguments], cwd=tree, check=True)
    return True


def git(tree: Path, *arguments: str) -> str:
    """What a git command prints. Raises ValueError: in one sentence, if git is missing or refuses."""
    try:
        return subprocess.run(
            ["git", *arguments], cwd=tree, check=True, capture_output=True, text=True
        ).stdout
    except FileNotFoundError as error:
        raise ValueError("git is not installed, and a project is made with it: install it.") from error
    except subprocess.CalledProcessError as error:
        raise ValueError(f"git {arguments[0]} failed in {tree}: {' '.join(error.stderr.split())}") from error


def commit(tree: Path, message: str) -> None:
    """Commits all files of a tree; somebody without a name of their own in git commits as the project."""
    known = subprocess.run(["git", "config", "user.email"], cwd=tree, capture_output=True).returncode == 0
    identity = [] if known else ["-c", f"user.name={tree.name}", "-c", f"user.email={tree.name}@localhost"]
    git(tree, "add", "-A")
    git(tree, *identity, "commit", "-q", "-m", message)
