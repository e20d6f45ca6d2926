"""Bad input ends with one sentence that names the culprit and the remedy, and never with a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from PIL import Image
from shared.fits import CLASSES, CONFIGS, PLAIN, Run

from litgan import cli

QUICK = [*PLAIN, "--trainer.max_steps=2"]
Complain: TypeAlias = Callable[..., str]  # makes something fail; returns its sentence


@pytest.fixture
def fit(complaint: Complain) -> Complain:
    """The complaint of a short `litgan fit` with the given options."""
    return lambda *options: complaint("fit", *QUICK, *options)


LINES = [  # an option, and parts of its sentence
    ("--model.discriminator_stepz=2", "model (litgan.GAN)", "'discriminator_stepz'"),
    ("--model=litgan.losses.Hinge", "model: ", "subclass of GAN", "litgan.losses.Hinge"),
    ("--samples.evry=3", "--samples.evry"),
    ("--trainer.max_stps=3", "--trainer.max_stps"),
    ("--model.generator.width=[3]", "model.generator (litgan.networks.DCGANGenerator)", "'width'"),
    ("--data.resoluton=8", "data (litgan.data.Digits)", "'resoluton'"),
    ("extra", "extra"),
    ("--model.discriminator_steps=x", "model.discriminator_steps", "'int'", "x"),
    ("--model.generator_optimizer.lr=foo", "model.generator_optimizer.lr", "'float'", "foo"),
    ("--data.flip=maybe", "data.flip", "'bool'", "maybe"),
    ("--model.generator.widths=3", "model.generator.widths", "Sequence", "3"),
    ("--model.generator.norm=foo", "model.generator.norm", "'none', 'batch', ", "foo"),
    ("--model.generator=litgan.networks.Nope", "model.generator", "litgan.networks.Nope"),
    ("--model.penalties+={class_path: litgan.penalties.R1, init_args: {evry: 3}}", "penalties.R1", "evry"),
    ("--model.penalties=[R7]", "model.penalties", "Penalty; Expected a dot import path string: R7 (see"),
    ("--model.penalties=[{class_path: R1, init_args: {weight: x}}]", "model.penalties.weight", "R1", "x"),
    ("--model.loss=litgan.losses.Foo", "model.loss", "litgan.losses", "Foo"),
    ("--data=litgan.data.Digit", "data (litgan.data.Digit)"),
    ("--model.generator=DCGANGeneratr", "model.generator", "DCGANGeneratr"),
    ("--data=nope.Data", "data", "No module named 'nope'"),
    ("--model.loss=torch.nn.Linear", "model.loss", "torch.nn.Linear", "subclass of AdversarialLoss"),
    ("--data=litgan.data.ImageFolder", "data (litgan.data.ImageFolder)", "required: root"),
    ("--config=absent.yaml", "absent.yaml"),
    ("--trainer.accelerator=foo", "accelerator='foo'", "Available names are"),
    ("--trainer=3", "trainer: "),
    ("--ckpt_path", "--ckpt_path"),
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_command_line(line: tuple[str, ...], fit: Complain, tmp_path: Path) -> None:
    option, *parts = line
    sentence = fit(option)
    assert all(part in sentence for part in parts), sentence
    assert "Namespace" not in sentence and "NestedArg" not in sentence and not list(tmp_path.iterdir())


FILES = {
    "misspelt key": ("ema_halflife", "ema_halflive", "model (litgan.GAN)", "'ema_halflive'"),
    "misspelt section": ("trainer:", "trainr:", "'trainr."),
    "misspelt network key": ("widths: [64, 32]", "width: [64]", "DCGANGenerator", "'width'"),
    "wrong type": ("batch_size: 64", "batch_size: many", "data.batch_size", "'int'", "many"),
    "no YAML": ("betas: [0.0", "betas: [[0.0", "bad.yaml", "line"),
}


@pytest.mark.parametrize("fault", FILES.values(), ids=FILES)
def test_recipe_file(fault: tuple[str, ...], complaint: Complain, tmp_path: Path) -> None:
    (old, new, *parts), text = fault, (CONFIGS / "digits.yaml").read_text()
    assert old in text
    (tmp_path / "bad.yaml").write_text(text.replace(old, new, 1))
    sentence = complaint("fit", "--config", tmp_path / "bad.yaml")
    assert all(part in sentence for part in parts), sentence


VERBS = {
    "unknown verb": (["frobnicate"], ["no verb frobnicate", "fit, validate, sample"]),
    "nothing to fit": (["fit"], ["model (litgan.GAN)", "required: generator", "fit --help"]),
    "nothing to sample": (["sample"], ["required: ckpt", "sample --help"]),
    "misspelt option": (["sample", "a.ckpt", "--cont=3"], ["--cont"]),
    "wrong type": (["sample", "a.ckpt", "--count=many"], ["count: ", "'int'", "many"]),
    "too many words": (["evaluate", *"abcdefgh"], ["b c d e"]),
    "no module to trust": (["sample", "a.ckpt", "--trust"], ["--trust"]),
    "no checkpoint": (["sample", "absent.ckpt"], ["no checkpoint at absent.ckpt", "give the path"]),
}


@pytest.mark.parametrize(("arguments", "parts"), VERBS.values(), ids=VERBS)
def test_verbs(arguments: list[str], parts: list[str], complaint: Complain) -> None:
    sentence = complaint(*arguments)
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--data.resolution=12"], ["DCGANGenerator", "12", "choose another resolution"]),
        (["--model.generator=torch.nn.Identity"], ["Identity", "latent_dim", "add one"]),
        (["--model.generator=torch.nn.Linear"], ["The generator cannot be made", "takes these two first"]),
        (["--data.num_classes=4"], ["Digits has 10 classes", "give num_classes 10"]),
        (["--data.batch_size=5000"], ["batch_size 5000", "1797"]),
        (["--realism.every=64", "--realism.count=3"], ["3 is too small for count", "at least 6"]),
        (["--realism.every=64", "--realism.extractor=foo"], ["foo", "digits, fashion"]),
        (["--model.generator_optimizer.lr=1e38"], ["became", "images", "lower learning rates"]),
        (["--ckpt_path=absent.ckpt"], ["no checkpoint at absent.ckpt", "give the path"]),
        *(
            ([f"--trainer.precision={one}"], [one, "give 32-true"])
            for one in ("64-true", "16-true", "bf16-true")
        ),
        (["--model.generator_optimizer.lr=.nan"], ["generator's optimizer", "nan", "generator_optimizer"]),
        (["--model.discriminator_optimizer.lr=-0.1"], ["discriminator's optimizer", "-0.1"]),
        (["--model.generator_optimizer.lr=.inf"], ["learning rate of Adam is inf", "finite"]),
        (["--model.lr_schedule=-1"], ["lr_schedule is -1", "at least 0"]),
        *(([f"--seed_everything={one}"], [str(one), "0 to 4"]) for one in (-1, 2**32, 10**30)),
        (["--model.ema_halflife=-5"], ["ema_halflife is -5", "at least 0"]),
        (["--model.ema_rampup=.nan"], ["ema_rampup is nan", "at least 0"]),
        (["--model.extra_ema_halflives=[-1]"], ["ema_halflife is -1"]),
        (["--realism.batch_size=0"], ["realism.batch_size is 0", "at least 1"]),
        (["--samples.columns=0"], ["samples.columns is 0", "at least 1"]),
        (["--gradients.every=-1"], ["gradients.every is -1", "at least 0"]),
        (["--checkpoint.minutes=-1"], ["checkpoint.minutes is -1", "at least 0"]),
        (["--data.batch_size=0"], ["batch_size 0", "give 1 to"]),
        (["--data.num_workers=-1"], ["num_workers", "-1"]),
    ],
    ids=lambda value: value[-1] if value[0].startswith("--") else "",
)
def test_what_does_not_fit(options: list[str], parts: list[str], fit: Complain) -> None:
    sentence = fit(*options)
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    "value", ["2e-4", "{class_path: litgan.schedules.WarmUp, init_args: {images: 64, then: 2e-4}}"]
)
def test_a_learning_rate_given_as_the_factor_warns(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for schedule, warned in ((value, True), ("0.5", False)):
        cli.main(["fit", *QUICK, f"--model.lr_schedule={schedule}"])
        assert ("lr_schedule is at most 0.0002, and it is a factor" in capsys.readouterr().err) == warned


def test_a_recipe_that_does_not_fit_leaves_no_run_folder(fit: Complain, tmp_path: Path) -> None:
    fit("--data.resolution=12")
    assert not (tmp_path / "runs").exists()


def write(path: Path, mode: str = "RGB", size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = () if mode == "L" else (3,)
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, *channels), dtype=np.uint8)
    Image.fromarray(pixels, mode=mode).save(path)
    return path


@pytest.fixture
def fit_folder(fit: Complain, tmp_path: Path) -> Complain:
    """The complaint of a run on the folder `pictures`."""
    folder = ["--data", "litgan.data.ImageFolder", "--data.root", "pictures", "--data.resolution=8"]
    return lambda *options: fit(*folder, "--data.batch_size=2", *options)


def absent(folder: Path) -> None: ...


def empty(folder: Path) -> None:
    folder.mkdir()


def truncated(folder: Path) -> None:
    for index in range(3):
        path = write(folder / f"{index}.png", size=64)
    path.write_bytes(path.read_bytes()[:2000])


def mixed(folder: Path) -> None:
    write(folder / "0.png")
    write(folder / "1.png", "L")


def two_classes(folder: Path) -> None:
    for name in ("cats", "dogs"):
        write(folder / name / "0.png")


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (absent, ["no folder or .zip pictures: give data.root"]),
        (empty, ["pictures holds no image: put files of type .png"]),
        (truncated, ["pictures/2.png cannot be decoded", "replace or remove it"]),
        (mixed, ["pictures/1.png has 1 channel", "give --data.convert true"]),
        (two_classes, ["2 subfolders with images (cats, dogs)", "give num_classes 2"]),
    ],
)
def test_folder_of_images(
    make: Callable[[Path], None], parts: list[str], fit_folder: Complain, tmp_path: Path
) -> None:
    make(tmp_path / "pictures")
    sentence = fit_folder(*(["--data.num_classes=3"] if make is two_classes else []))
    assert all(part in sentence for part in parts), sentence


def test_labels_out_of_range(fit: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn import datasets

    digits = datasets.load_digits()
    digits.target[17] = 12
    monkeypatch.setattr(datasets, "load_digits", lambda: digits)
    sentence = fit("--data.num_classes=10")
    assert "sample 17 of Digits (train) has label 12" in sentence and "0 to 9: correct either" in sentence


def test_a_run_folder_that_cannot_be_made(fit: Complain, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file, no folder")
    sentence = fit("--trainer.default_root_dir=occupied")
    assert "The run folder occupied/digits/" in sentence and "give another place" in sentence


def test_checkpoints(fit: Complain, complaint: Complain, digits_run: Run, tmp_path: Path) -> None:
    (tmp_path / "half.ckpt").write_bytes(digits_run.checkpoint.read_bytes()[:5000])
    for sentence in (
        fit("--ckpt_path=half.ckpt"),
        complaint("sample", "half.ckpt"),
        complaint("evaluate", "half.ckpt"),
    ):
        assert "The checkpoint half.ckpt cannot be read" in sentence and "take another" in sentence
    sentence = fit(f"--ckpt_path={digits_run.checkpoint}", *CLASSES, "--model.generator.widths=[16,8]")
    assert "The checkpoint is of another architecture: generator." in sentence
    assert "config.yaml" in sentence


@pytest.mark.parametrize(
    ("verb", "options", "parts"),
    [
        ("interpolate", ["--points=1"], ["goes nowhere", "give at least 2"]),
        ("sample", ["--labels=one"], ['"one" are no classes', "0,1,2"]),
        ("sample", ["--truncation=-1"], ["truncation is -1", "give a positive"]),
        ("sample", ["--count=0"], ["count of 0", "give at least 1"]),
        ("evaluate", ["--count=3"], ["3 is too small for count", "at least 6"]),
        ("evaluate", ["--ema=foo"], ["ema", "'int'", "foo"]),
        ("evaluate", ["--extractor=foo"], ["foo", "digits, fashion"]),
        ("evaluate", ["--count=10", "--split=held"], ["no split 'held'", "ask for 'train'"]),
    ],
)
def test_options_of_commands(
    verb: str, options: list[str], parts: list[str], complaint: Complain, digits_run: Run
) -> None:
    sentence = complaint(verb, digits_run.checkpoint, *options)
    assert all(part in sentence for part in parts), sentence


@pytest.mark.parametrize(
    "verb", sorted({"sample", "evaluate", "interpolate", "export", "lab"} & cli.VERBS.keys())
)
@pytest.mark.parametrize("fault", ["it is a folder", "file is no folder", "is not writable"])
def test_a_place_that_takes_no_output_is_noticed_before_the_work(
    verb: str, fault: str, complaint: Complain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    if fault == "is not writable":  # who is root may write everywhere
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    out = {"it is a folder": "folder", "file is no folder": "file/inside/out"}.get(fault, "folder/new/out")
    if fault == "it is a folder" and verb in ("sample", "lab"):
        out, fault = "file", "file is no folder"
    sentence = complaint(verb, *["absent.ckpt"] * (verb != "lab"), f"--out={out}")
    assert out in sentence and fault in sentence and "--out" in sentence
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_measurement_is_printed_though_it_cannot_be_written(
    digits_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SystemExit, match="1"):
        cli.main(["evaluate", str(digits_run.checkpoint), "--count=8", f"--out={tmp_path / 'm.json'}"])
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["images_seen"] == 128
    assert said.err.startswith("litgan: error: ") and "m.json" in said.err and said.err.count("\n") == 1


BUGS = {  # lines of a module of litgan
    "division": "1 % 0",
    "a ValueError of Python": "int('x')",
    "an assertion": "assert 1 > 2",
    "inside a sentence": "raise ValueError(f'{1 % 0} samples.')",
    "after a sentence": "try:\n  raise ValueError('Give another.')\nfinally:\n  [].pop()",
}


@pytest.mark.parametrize("name", ["litgan.anything", "elsewhere"])
@pytest.mark.parametrize("line", BUGS.values(), ids=BUGS)
def test_bugs_keep_their_traceback(
    line: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.VERBS, "sample", lambda arguments: exec(line, {"__name__": name}))
    with pytest.raises(SystemExit) as end:
        cli.main(["sample"])
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert said.startswith("Traceback") and said.splitlines()[-1].startswith("litgan: error: ")


def test_a_sentence_has_none_even_as_a_cause(complaint: Complain, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "try:\n  raise ValueError('Give another.')\nexcept ValueError as e:\n  wrap(e)"

    def wrap(error: Exception) -> None:
        raise RuntimeError("of a library") from error

    verb = lambda arguments: exec(lines, {"__name__": "litgan.x", "wrap": wrap})  # noqa: E731
    monkeypatch.setitem(cli.VERBS, "sample", verb)
    assert complaint("sample") == "Give another."


@pytest.mark.parametrize("error", ["", "\n", 'Parser key "a":\n  Errors:\n', "something\n  new"])
def test_no_error_of_the_parser_becomes_an_empty_or_a_second_line(error: str) -> None:
    assert len(cli.one_line(error).splitlines()) == 1
