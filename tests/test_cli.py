from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared.fits import Run

from litgan import GAN, cli
from litgan.commands import parse_labels
from litgan.data import Digits
from litgan.loggers import read_metrics
from litgan.recipe import Recipe


def test_fit_ends_with_what_came_out(digits_run: Run) -> None:
    lines = dict(line.split(maxsplit=1) for line in digits_run.said.splitlines()[-5:])
    assert list(lines) == ["run", "metric", "grid", "curves", "wandb"]
    assert lines["run"] == str(digits_run.folder)
    rows = read_metrics(digits_run.folder / "metrics.csv")
    found = {row["images_seen"]: row["metric/fd_digits"] for row in rows}
    best = min((at for at in found if at), key=lambda at: found[at])
    assert lines["metric"] == (
        f"metric/fd_digits {found[128]:.4g}, best {found[best]:.4g} after {best} images"
    )
    assert Path(lines["grid"]) == digits_run.folder / "samples" / "000000128.png"
    for picture in (lines["grid"], lines["curves"]):
        assert min(Image.open(picture).size) > 100
    synced = lines["wandb"].removeprefix("offline; to upload it: wandb sync ")
    assert list(Path(synced).parent.glob(Path(synced).name)), "the folder to upload is there"
    names = {path.relative_to(digits_run.folder).as_posix() for path in digits_run.folder.rglob("*")}
    assert names >= {
        "config.yaml", "metrics.csv", "curves.png", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        "samples/reals.png", "samples/000000000.png", "wandb",
    }  # fmt: skip


def test_the_resolved_recipe_runs_again(digits_run: Run, tmp_path: Path) -> None:
    resolved = digits_run.folder / "config.yaml"
    recipe = Recipe(["--config", str(resolved)], "validate")
    assert recipe.folder.path.parent == digits_run.folder.parent  # beside the first, not inside
    assert recipe.ckpt_path is None
    assert recipe.config.model.init_args.generator.init_args.widths == [8, 8]
    assert recipe.config.trainer.max_steps == 4
    assert recipe.name == "digits"
    recipe.model.load_state_dict(GAN.load_from_checkpoint(str(digits_run.checkpoint)).state_dict())


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--seed", "5"], {"seed": 5}),
        (["--labels", "3,1"], {"condition": [3, 1]}),
        (["--truncation", "0.3"], {"truncation": 0.3}),
        (["--raw-weights"], {"ema": False}),
    ],
)
def test_sample(
    options: list[str], arguments: dict, digits_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Writes the very samples of `GAN.sample`, and their picture."""
    cli.main(["sample", str(digits_run.checkpoint), "--count", "12", "--out", str(tmp_path), *options])
    (tensor,), (picture,) = tmp_path.glob("*.pt"), tmp_path.glob("*.png")
    assert capsys.readouterr().out.split() == [str(picture)]
    gan, samples = GAN.load_from_checkpoint(digits_run.checkpoint), torch.load(tensor, weights_only=True)
    assert torch.equal(samples, gan.sample(12, **arguments))
    assert not arguments or not torch.equal(samples, gan.sample(12))
    np.testing.assert_array_equal(np.array(Image.open(picture)), Digits().decode(samples).render().numpy())


def test_evaluate_ends_with_one_json_object(
    digits_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "metrics.json"
    cli.main(["evaluate", str(digits_run.checkpoint), "--count", "300", "--out", str(out)])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads(out.read_text())
    last = read_metrics(digits_run.folder / "metrics.csv")[-1]
    for key in ("metric/fd_digits", "metric/kid", "metric/precision", "metric/recall"):
        assert found[key] == pytest.approx(last[key], rel=1e-6, abs=1e-12), "what the run measured at its end"
    assert found["images_seen"] == 128
    protocol = found["protocol"]
    assert (protocol["weights"], protocol["fake_count"], protocol["split"]) == ("ema", 300, "train")

    cli.main(["evaluate", str(digits_run.checkpoint), "--count", "300", "--raw-weights"])
    raw = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert raw["protocol"]["weights"] == "raw"
    assert raw["metric/fd_digits"] != found["metric/fd_digits"]


def test_evaluate_chooses_among_averages(digits_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for ema in ("all", "1000000"):
        cli.main(["evaluate", str(digits_run.checkpoint), "--count", "50", "--ema", ema])
        found[ema] = json.loads(capsys.readouterr().out.splitlines()[-1])
    distances = found["all"]["averages"]
    assert distances.keys() == {"ema", "ema 1000000"}
    assert found["all"]["protocol"]["weights"] == min(distances, key=distances.get)
    assert found["1000000"]["metric/fd_digits"] == pytest.approx(distances["ema 1000000"], rel=1e-6)


def test_validate_measures_with_the_recipe(digits_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--config", str(digits_run.folder / "config.yaml"), "--ckpt_path", str(digits_run.checkpoint)]
    before = sorted(digits_run.folder.rglob("*"))
    cli.main(["validate", *files])
    said = capsys.readouterr().out
    wanted = read_metrics(digits_run.folder / "metrics.csv")[-1]["metric/fd_digits"]
    shown = next(line for line in said.splitlines() if "metric/fd_digits" in line)
    assert float(shown.replace("│", " ").split()[-1]) == pytest.approx(wanted, rel=1e-4)
    assert sorted(digits_run.folder.rglob("*")) == before, "leaves nothing behind"


def test_litgan_alone_tells_its_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    said = capsys.readouterr().out
    assert all(f"litgan {verb}" in said for verb in cli.VERBS)


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([verb, "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert said.startswith(f"usage: litgan {verb}")
    assert "Args:" not in said and "Raises:" not in said
    option = {
        "fit": "--samples.every",
        "validate": "--ckpt_path",
        "sample": "--truncation",
        "new": "--name",
        "pack": "--data",
    }.get(verb, "--out")
    explained = said[said.rindex(f"\n  {option} ") :].split("--")[1]
    assert len(explained.split()) > 5, "an option is explained"


@pytest.mark.spawn
def test_the_command_runs_as_a_module(digits_run: Run, tmp_path: Path) -> None:
    arguments = ["sample", str(digits_run.checkpoint), "--count", "4", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "litgan", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'samples_seed0.png'}\n"), done.stderr


def test_interpolate_walks_in_a_circle(digits_run: Run, tmp_path: Path) -> None:
    """Every picture is a sample of its own, and the corners are the first samples of the same seed."""
    out = tmp_path / "deep" / "loop.gif"
    options = ["--out", str(out), "--points", "3", "--steps", "4", "--seed", "1"]
    cli.main(["interpolate", str(digits_run.checkpoint), *options])
    film = Image.open(out)
    assert film.n_frames == 12 and film.info["loop"] == 0
    samples = GAN.load_from_checkpoint(str(digits_run.checkpoint)).sample(3, seed=1, condition=[0])
    corners = [Digits().decode(one[None]).render().numpy().astype(float) for one in samples]
    for corner in range(3):
        film.seek(4 * corner)
        errors = [np.abs(np.array(film.convert("RGB")) - expected).max() for expected in corners]
        assert errors[corner] <= 8  # of 255: a GIF's palette
        assert min(errors[:corner] + errors[corner + 1 :]) > 16


def test_labels_are_numbers_or_names_of_classes() -> None:
    assert parse_labels("1, snare,0", ["kick", "snare"]) == [1, 1, 0]
    for names, known in ((["kick", "snare"], "0,1,2 or kick,snare"), (None, "0,1,2")):
        with pytest.raises(ValueError, match=f'"tom" are no classes: write them as {known}\\.'):
            parse_labels("tom", names)
