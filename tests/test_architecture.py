"""The house: who may import whom. Imports inside functions and under TYPE_CHECKING count too."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import litgan

ROOT = Path(litgan.__file__).parent
PACKAGE = ROOT.name
WINGS = {"zoo", "translation", "text", "sound", "music", "lab", "diagnosis", "new"}
FLOORS = 6
SCIENCE = {
    "losses",
    "penalties",
    "reconstruction",
    "adversarial_weight",
    "networks",
    "gradient_flow",
}  # torch, numpy and each other


def unit(path: Path) -> str:
    """The room that a file belongs to: a module or folder right below the package."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def imported(path: Path) -> frozenset[str]:
    """Full names of all modules that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = node.module == PACKAGE  # from litgan import runs
            found |= {f"{PACKAGE}.{alias.name}" for alias in node.names} if inside else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return frozenset(found)


def rooms() -> dict[str, set[str]]:
    """Each room with the rooms that it imports."""
    edges: dict[str, set[str]] = {}
    for path in ROOT.rglob("*.py"):
        if unit(path) in ("__init__", "__main__"):
            continue
        inner = {name.split(".")[1] for name in imported(path) if name.startswith(f"{PACKAGE}.")}
        edges.setdefault(unit(path), set()).update(inner - {unit(path)})
    return edges


def test_the_core_imports_no_wing_and_wings_do_not_import_each_other():
    ties = {(room, other) for room, others in rooms().items() for other in others & WINGS}
    assert not ties


def test_what_is_the_core_s_beside_the_source_imports_no_wing_either():
    for folder in ("tests", "benchmarks"):
        for path in (ROOT.parents[1] / folder).rglob("*.py"):
            inner = {name.split(".")[1] for name in imported(path) if name.startswith(f"{PACKAGE}.")}
            assert not WINGS & inner or WINGS & set(path.parts), path


def test_there_is_no_circle_and_there_are_at_most_six_floors():
    edges = rooms()

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        assert room not in above, f"a circle: {' > '.join([*above, room])}"
        return 1 + max((floor(other, (*above, room)) for other in edges.get(room, ())), default=0)

    floors = {room: floor(room) for room in edges}
    assert max(floors.values()) <= FLOORS, {
        room: number for room, number in floors.items() if number > FLOORS
    }


def test_files_of_one_room_do_not_import_in_a_circle():
    files = {path for path in ROOT.rglob("*.py") if path.name != "__init__.py"}
    names = {f"{PACKAGE}.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}": path for path in files}

    def walk(path: Path, above: tuple[Path, ...] = ()) -> None:
        assert path not in above, " > ".join(str(one.relative_to(ROOT)) for one in (*above, path))
        for name in imported(path) & names.keys():
            walk(names[name], (*above, path))

    for path in files:
        walk(path)


def test_science_imports_torch_only():
    for path in ROOT.rglob("*.py"):
        if unit(path) in SCIENCE:
            outside = {name.split(".")[0] for name in imported(path)}
            assert "lightning" not in outside and "wandb" not in outside, path
