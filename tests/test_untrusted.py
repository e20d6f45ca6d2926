"""A checkpoint from a stranger: nothing that it names is run, imported, downloaded or written to."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from shared.fits import CLASSES, PLAIN, Run

from litgan import GAN, checkpoints, cli, commands
from litgan.data import GANDataModule
from litgan.export import load_generator
from litgan.rebuild import Builder

FIT = ["fit", *PLAIN, *CLASSES]
EVIL = """
from pathlib import Path

Path({ran!r}).touch()

class Evil:
    pass

def x(*_, **__):
    pass
"""
EVIL_YAML = "{class_path: subprocess.Popen, init_args: {args: touch ran, shell: true}}"
MINE = """
from subprocess import Popen
from litgan.losses import Hinge

class Loss(Hinge):
    def __init__(self, scale: float = 1.0, anything=None) -> None:
        self.scale = scale
"""


@pytest.fixture(scope="module")
def good(digits_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound checkpoint; every verb has been used once, and has imported what it needs."""
    out = tmp_path_factory.mktemp("good")
    exported = export(digits_run.checkpoint, out / "generator.safetensors")
    for verb in verbs(digits_run.checkpoint, exported, out).values():
        verb()
    return digits_run.checkpoint


def export(checkpoint: Path, out: Path) -> Path:
    commands.export(str(checkpoint), out=str(out))
    return out


def verbs(checkpoint: Path, exported: Path, out: Path) -> dict[str, Callable[[], object]]:
    """Everything that takes a checkpoint, or what was exported of one."""
    path = str(checkpoint)
    return {
        "sample": lambda: commands.sample(path, count=2, out=str(out)),
        "evaluate": lambda: commands.evaluate(path, count=8),
        "interpolate": lambda: commands.interpolate(path, points=2, steps=1, out=str(out / "loop.gif")),
        "export": lambda: commands.export(path, out=str(out / "generator.safetensors")),
        "load_from_checkpoint": lambda: GAN.load_from_checkpoint(checkpoint),
        "load_generator": lambda: load_generator(exported),
    }


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, on Python's path, with modules and files that nobody should touch."""
    (tmp_path / "evilmod.py").write_text(EVIL.format(ran=str(tmp_path / "ran")))
    (tmp_path / "evil.yaml").write_text(EVIL_YAML)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.py").write_text(MINE)
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    yield tmp_path
    for name in ("evilmod", "mine"):
        sys.modules.pop(name, None)


def edited(good: Path, path: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a checkpoint, with its "litgan" entry changed in place."""
    checkpoint = torch.load(good, weights_only=True)
    edit(checkpoint["litgan"])
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
    return path


def state(folder: Path) -> tuple[set[str], dict[Path, int]]:
    """What is imported, and the files of a folder with their times of change."""
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if "__pycache__" not in str(path)}
    return {name for name in sys.modules if not name.startswith("litgan.")}, files


def assert_refused(action: Callable[[], object], workplace: Path, match: str = "") -> str:
    """Runs what must end in one sentence, and leave nothing behind."""
    before, began = state(workplace), time.monotonic()
    with pytest.raises(ValueError, match=match or "checkpoint's recipe") as refused:
        action()
    sentence = str(refused.value)
    assert "\n" not in sentence and len(sentence) < 500 and sentence.endswith(".")
    assert state(workplace) == before
    assert time.monotonic() - began < 60
    return sentence


# -- the rows of an attack ---------------------------------------------------------------------

POPEN = {"class_path": "subprocess.Popen", "init_args": {"args": "touch ran", "shell": True}}
SYSTEM = {"class_path": "os.system", "init_args": {"command": "touch ran"}}
ZERO = {
    "class_path": "torch.distributed.optim.ZeroRedundancyOptimizer",
    "init_args": {"optimizer_class": "torch.optim.Adam", "process_group": POPEN},
}
LINEAR = {"class_path": "torch.nn.Linear", "init_args": {"device": POPEN}}
TRANSFORMER = {"class_path": "torch.nn.Transformer", "init_args": {"custom_encoder": POPEN}}


def shared(depth: int) -> list[Any]:
    node: list[Any] = []
    for _ in range(depth):
        node = [node, node]
    return node


def cycle() -> list[Any]:
    node: list[Any] = []
    node.append(node)
    return node


def nested(depth: int) -> list[Any]:
    node: list[Any] = []
    for _ in range(depth):
        node = [node]
    return node


ROWS: dict[str, Callable[[dict[str, Any]], object]] = {  # they change a model's recipe in place
    "an optimizer with a parameter of type Any": lambda it: it.update(generator_optimizer=ZERO),
    "an untyped parameter": lambda it: it.update(generator=LINEAR),
    "a parameter of type Any": lambda it: it.update(generator=TRANSFORMER),
    "the model as JSON": lambda it: json.dumps({**it, "generator_optimizer": ZERO}),
    "a part as YAML": lambda it: it.update(loss=EVIL_YAML),
    "a part as JSON": lambda it: it.update(loss=json.dumps(POPEN)),
    "the model as a file": lambda it: "evil.yaml",
    "a part as a file": lambda it: it.update(loss="evil.yaml"),
    "the model as a FIFO": lambda it: "fifo",
    "a part as a FIFO": lambda it: it.update(generator="fifo"),
    "a module on the path": lambda it: it["discriminator"]["init_args"].update(norm="evilmod.x"),
    "a module of Python": lambda it: it["discriminator"]["init_args"].update(norm="venv.__main__.x"),
    "a module of a package": lambda it: it.update(compile=["wandb.__main__.x"]),
    "a class on the path": lambda it: it.update(loss={"class_path": "evilmod.Evil"}),
    "a function": lambda it: it.update(generator={"class_path": "torchvision.models.resnet18"}),
    "a name without a module": lambda it: it.update(loss={"class_path": "Hinge"}),
    "a module inside litgan's": lambda it: it.update(loss={"class_path": "litgan.runs.re.Scanner"}),
    "a foreign class inside litgan's": lambda it: it.update(loss={"class_path": "litgan.runs.Path"}),
    "another kind of class": lambda it: it.update(loss={"class_path": "litgan.data.Digits"}),
    "arguments as a text": lambda it: it["generator"].update(init_args="{widths: [8, 8]}"),
    "other keys": lambda it: it["generator"].update(dict_kwargs={"widths": POPEN}),
    "a list shared 60 deep": lambda it: it.update(penalties=shared(60)),
    "a list shared wide": lambda it: it.update(penalties=shared(20)),
    "a cycle": lambda it: it.update(penalties=cycle()),
    "a deep list": lambda it: it.update(penalties=nested(400)),
    "a long text": lambda it: it["discriminator"]["init_args"].update(norm="x" * 10**6),
    "a long name": lambda it: it.update(loss={"class_path": "litgan." + "x" * 4000}),
    "a large integer": lambda it: it.update(seed=10**30),
    "control characters": lambda it: it["generator"]["init_args"].update(norm="\x1b[2J\nlitgan: well."),
    "control characters in a key": lambda it: it.update({"\x1b[2J\nall is well": 1}),
    "an option too many": lambda it: it.update(unheard_of=1),
    "an option too few": lambda it: it.pop("loss"),
}  # fmt: skip
ENDLESS = ("a list shared 60 deep", "a list shared wide", "a cycle")


@pytest.mark.parametrize("row", ROWS)
def test_a_hostile_recipe_is_refused_by_every_verb(row: str, good: Path, workplace: Path) -> None:
    def attack(said: dict[str, Any]) -> None:
        model = said["recipe"]["model"]
        changed = ROWS[row](model["init_args"])
        said["recipe"]["model"] = changed if isinstance(changed, str) else model

    path = edited(good, workplace / "stranger.ckpt", attack)
    actions = verbs(path, workplace / "stranger.safetensors", workplace / "out")
    if row in ENDLESS:  # JSON has no such thing
        del actions["load_generator"]
    else:
        model = torch.load(path, weights_only=True)["litgan"]["recipe"]["model"]
        about = {"model": json.dumps(model), "images_seen": "64"}
        save_file({"weight": torch.ones(1)}, workplace / "stranger.safetensors", about)
    for action in actions.values():
        assert_refused(action, workplace, "recipe")


@pytest.mark.parametrize("part", ["model", "data", "realism"])
@pytest.mark.parametrize(
    "attack",
    [POPEN, SYSTEM, "evil.yaml", "fifo", "evilmod.x", {"class_path": "litgan.losses.Hinge"}, 7],
    ids=str,
)
def test_no_part_is_built_of_another_class(attack: Any, part: str, good: Path, workplace: Path) -> None:
    described = {"extractor": attack} if part == "realism" else attack
    path = edited(good, workplace / "stranger.ckpt", lambda said: said["recipe"].update({part: described}))
    match = "extractor|checkpoint's recipe" if part == "realism" else ""
    assert_refused(lambda: commands.evaluate(str(path), count=8), workplace, match)


@pytest.mark.spawn
def test_the_command_line_says_one_sentence_and_ends(good: Path, workplace: Path) -> None:
    """In a process of its own, which would wait for the FIFO for ever."""
    path = edited(good, workplace / "stranger.ckpt", lambda said: said["recipe"].update(model="fifo"))
    before = state(workplace)[1]
    done = subprocess.run(
        [sys.executable, "-m", "litgan", "sample", str(path), "--out", "out"], cwd=workplace,
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("litgan: error: The checkpoint's recipe") and done.stderr.count("\n") == 1
    assert state(workplace)[1] == before


# -- mutations ---------------------------------------------------------------------------------


def places(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Keys that lead to each node of a recipe below the first."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*above, key)
        yield from places(child, (*above, key))


def mutated(recipe: dict[str, Any], place: tuple[Any, ...], dice: random.Random) -> dict[str, Any]:
    """The recipe with another kind of thing in one place."""
    recipe = copy.deepcopy(recipe)
    *above, last = place
    parent: Any = recipe
    for key in above:
        parent = parent[key]
    if last == "class_path":
        parent[last] = dice.choice(("subprocess.Popen", "os.system", "evilmod.Evil", "litgan.render.Path"))
    elif isinstance(parent[last], dict):
        texts = (json.dumps(parent[last]), "evil.yaml", "fifo", "evilmod.x", json.dumps(POPEN))
        parent[last] = dice.choice(texts)
    else:
        parent[last] = dice.choice((POPEN, SYSTEM, {"class_path": "evilmod.Evil"}, [POPEN]))
    return recipe


def test_mutations_of_a_good_recipe_are_refused(good: Path, workplace: Path) -> None:
    """Each class is replaced by a foreign one, and thirty places, drawn by a seed, by something else."""
    recipe, dice = checkpoints.read(good)["litgan"]["recipe"], random.Random(0)
    recipe["model"]["init_args"]["lr_schedule"] = {
        "class_path": "litgan.schedules.WarmUp",
        "init_args": {"images": 9},
    }
    recipe = {**{part: recipe[part] for part in ("model", "data")}, "realism": {"extractor": "digits"}}
    found = [place for place in places(recipe) if place != ("realism",)]
    chosen = [place for place in found if place[-1] == "class_path"] + dice.sample(found, 30)
    assert len(chosen) > 36
    for place in chosen:
        changed = {"litgan": {"recipe": mutated(recipe, place, dice)}}

        def build(changed: dict[str, Any] = changed) -> None:
            checkpoints.build_gan(changed, GAN)
            checkpoints.build_data(changed, GANDataModule)
            commands.build_extractor(changed, Builder())

        match = "extractor|checkpoint's recipe" if place[0] == "realism" else ""
        assert_refused(build, workplace, match)


# -- classes that the user trusts --------------------------------------------------------------


def with_loss(path: str, **arguments: Any) -> Callable[[dict[str, Any]], object]:
    loss = {"class_path": path, "init_args": arguments}
    return lambda said: said["recipe"]["model"]["init_args"].update(loss=loss)


def test_a_module_is_imported_once_it_is_trusted(good: Path, workplace: Path) -> None:
    path = edited(good, workplace / "run" / "checkpoints" / "mine.ckpt", with_loss("mine.Loss", scale=2))
    for trust in ((), "other", ("min", "mine.py")[:1]):
        sentence = assert_refused(lambda: GAN.load_from_checkpoint(path, trust=trust), workplace)  # noqa: B023
        assert "mine.Loss" in sentence and "--trust mine " in sentence
    for trust in ("lib/mine.py", "", "mine;os"):  # no modules
        assert_refused(lambda: GAN.load_from_checkpoint(path, trust=trust), workplace, "--trust")  # noqa: B023
    gan = GAN.load_from_checkpoint(path, trust=("mine",))
    assert type(gan.loss).__module__ == "mine" and gan.loss.scale == 2.0
    for option in (["--trust", "mine"], ["--trust=other,mine"], ["--trust=other", "--trust", "mine"]):
        cli.main(["sample", str(path), "--count=2", "--out=out", *option])
        cli.main(["export", str(path), "--out=out/generator.safetensors", *option])
    cli.main(["interpolate", str(path), "--points=2", "--steps=1", "--out=out/loop.gif", "--trust=mine"])
    assert_refused(lambda: load_generator("out/generator.safetensors"), workplace)
    load_generator("out/generator.safetensors", trust=("mine",))
    assert commands.evaluate(str(path), count=8, trust="mine")["images_seen"] == 128


@pytest.mark.parametrize(
    ("attack", "culprit"),
    [
        (("mine.Popen",), "subprocess"),  # a class that it only imports
        (("mine.Absent",), "no class"),
        (("mine.Loss.Inner",), "cannot be imported"),
        (("mine.Loss", {"anything": POPEN}), "anything"),
        (("mine.Loss", {"scale": POPEN}), "scale"),
    ],
    ids=str,
)
def test_a_trusted_module_gives_its_own_classes_alone(
    attack: tuple[Any, ...], culprit: str, good: Path, workplace: Path
) -> None:
    edit = with_loss(attack[0], **dict(*attack[1:]))
    path = edited(good, workplace / "stranger.ckpt", edit)
    sys.modules.pop("mine", None)
    __import__("mine")
    assert culprit in assert_refused(lambda: GAN.load_from_checkpoint(path, trust="mine"), workplace)


@pytest.mark.parametrize(
    "place", ["evilmod.py", "run/evilmod.py", "run/code/evilmod.py", "evilmod/__init__.py"]
)
def test_code_beside_a_checkpoint_is_not_imported(
    place: str, good: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when its module is trusted, and on Python's path: the user meant another one."""
    source = (workplace / "evilmod.py").read_text()
    (workplace / "evilmod.py").unlink()
    (workplace / place).parent.mkdir(parents=True, exist_ok=True)
    (workplace / place).write_text(source)
    if place.startswith("run"):
        monkeypatch.syspath_prepend(str((workplace / place).parent))
        path = workplace / "run" / "checkpoints" / "stranger.ckpt"
    else:
        path = workplace / "stranger.ckpt"
    edited(good, path, with_loss("evilmod.Evil"))
    sentence = assert_refused(lambda: GAN.load_from_checkpoint(path, trust="evilmod"), workplace)
    assert "evilmod" in sentence and not (workplace / "ran").exists()


# -- what litgan's own classes do with what they are given -------------------------------------


@pytest.fixture
def mirror() -> Iterator[tuple[str, list[str]]]:
    """A server that has nothing, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("data_set", ["MNIST", "FashionMNIST", "CIFAR10", "CelebA"])
def test_data_are_downloaded_once_the_user_allows_it(
    data_set: str, mirror: tuple[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    url, asked = mirror
    for name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(getattr(datasets, name), "mirrors", [url])
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{url}cifar.tar.gz")
    arguments = {"root": str(workplace / "downloads"), "download": True}
    if data_set == "FashionMNIST":
        arguments["installed"] = str(workplace)
    recipe = {"class_path": f"litgan.data.{data_set}", "init_args": arguments}
    checkpoint = {"litgan": {"recipe": {"data": recipe}}}
    with pytest.raises(RuntimeError, match=rf"^{data_set} cannot be read .* --download.*\.$"):
        checkpoints.build_data(checkpoint, GANDataModule).load()
    assert not asked and not (workplace / "downloads").exists()
    if data_set != "CelebA":  # which lies on another's drive
        with pytest.raises(RuntimeError, match=f"{data_set} can neither be read"):
            checkpoints.build_data(checkpoint, GANDataModule, Builder(download=True)).load()
        assert asked


def test_published_weights_are_downloaded_once_the_user_allows_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(workplace / "hub"))
    chosen: Any
    for chosen in ("inception", "inception-bf16", {"class_path": "litgan.metrics.Inception"}):
        checkpoint = {"litgan": {"recipe": {"realism": {"extractor": chosen}}}}
        with pytest.raises(FileNotFoundError, match=r"^No Inception weights .* --download\)\.$"):
            commands.build_extractor(checkpoint, Builder())
    assert not (workplace / "hub").exists()


def test_no_weights_are_read_that_a_checkpoint_names(workplace: Path) -> None:
    chosen = {"class_path": "litgan.metrics.Inception", "init_args": {"weights": "./theirs"}}
    checkpoint = {"litgan": {"recipe": {"realism": {"extractor": chosen}}}}
    for builder in (Builder(), Builder(download=True)):
        sentence = assert_refused(lambda: commands.build_extractor(checkpoint, builder), workplace)  # noqa: B023
        assert "theirs" in sentence and "--extractor" in sentence


def test_a_name_of_an_extractor_leads_out_of_no_folder(
    good: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITGAN_CACHE", str(workplace / "a" / "cache"))
    arguments = {"name": "../../outside/x", "size": 8, "widths": [8]}
    chosen = {"class_path": "litgan.metrics.extractors.Classifier", "init_args": arguments}
    path = edited(
        good, workplace / "x.ckpt", lambda said: said["recipe"].update(realism={"extractor": chosen})
    )
    commands.evaluate(str(path), count=8)
    written = [path.parent for path in workplace.rglob("*.safetensors")]
    assert written == [workplace / "a" / "cache"]


# -- the rest of a checkpoint ------------------------------------------------------------------


@pytest.mark.heavy
@pytest.mark.parametrize(
    "run_id", ["..", ".", "", "a/b", "../../a", "a\n", "x" * 129, "\x1b[2J", 7, None, ["a"]]
)
def test_a_run_id_names_a_folder_and_no_way(
    run_id: Any, good: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = edited(good, workplace / "stranger.ckpt", lambda said: said["recipe"].update(run_id=run_id))
    before = state(workplace)[1]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main([*FIT, f"--trainer.default_root_dir={workplace / 'runs'}", f"--ckpt_path={path}"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("litgan: error: The checkpoint's run id")
    assert state(workplace)[1] == before


def test_a_hostile_recipe_is_no_part_of_a_resumed_run(good: Path, workplace: Path) -> None:
    """Its own recipe, that of the user, is built; with what the checkpoint says nothing is done."""
    path = edited(good, workplace / "stranger.ckpt", with_loss("evilmod.Evil"))
    options = [f"--trainer.default_root_dir={workplace / 'runs'}", f"--ckpt_path={path}"]
    cli.main([*FIT, *options, "--trainer.max_steps=5"])
    assert not (workplace / "ran").exists() and "evilmod" not in sys.modules
    (last,) = workplace.glob("runs/digits/*/checkpoints/last.ckpt")
    assert checkpoints.read(last)["litgan"]["images_seen"] == 160


@pytest.mark.parametrize(
    "about",
    [
        {"model": "[" * 200_000, "images_seen": "64"}, {"model": "{" * 9, "images_seen": "64"},
        {"model": "1" * 9_000, "images_seen": "64"}, {"model": " " * 2_000_000, "images_seen": "64"},
        {"model": "[]", "images_seen": "64"}, {"model": '"fifo"', "images_seen": "64"},
        {"model": "fifo", "images_seen": "64"},
        {"images_seen": "-1"}, {"images_seen": "1e9"}, {"images_seen": "9" * 5_000}, {"images_seen": "x"},
    ],
    ids=lambda about: str(about)[:40],
)  # fmt: skip
def test_an_exported_file_is_read_with_the_same_care(
    about: dict[str, str], good: Path, workplace: Path
) -> None:
    path = workplace / "stranger.safetensors"
    model = json.dumps(checkpoints.read(good)["litgan"]["recipe"]["model"])
    weights = load_file(export(good, workplace / "generator.safetensors"))
    save_file(weights, path, {"model": model, **about})
    assert_refused(lambda: load_generator(path), workplace, "recipe|how to build its network")
    save_file(dict.fromkeys(["x"], torch.ones(1)), path, {"model": model, "images_seen": "64"})
    assert_refused(lambda: load_generator(path), workplace, "architecture")
