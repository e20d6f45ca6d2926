from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from litgan import GAN, cli
from litgan.data import Digits
from litgan.loggers import read_metrics
from litgan.recipe import Recipe

CONFIG = Path(__file__).parents[1] / "configs" / "digits.yaml"


class Finished(NamedTuple):
    """A run of `litgan fit`: digits by class, 4 iterations of 32."""

    folder: Path
    said: str  # on stdout

    @property
    def checkpoint(self) -> str:
        return str(self.folder / "checkpoints" / "last.ckpt")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
        patch.setenv("LITGAN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("LITGAN_RUN_ID", "")
        root = tmp_path_factory.mktemp("runs")
        cli.main([
            "fit", "--config", str(CONFIG), "--trainer.max_steps=4", "--trainer.log_every_n_steps=2",
            "--data.batch_size=32", "--data.num_classes=10", "--realism.count=300", "--realism.every=64",
            "--model.generator.widths=[8,8]", "--model.discriminator.widths=[8,8]",
            "--trainer.accelerator=cpu", "--trainer.precision=32-true", f"--trainer.default_root_dir={root}",
        ])  # fmt: skip
        (folder,) = root.glob("digits/*")
        yield Finished(folder, said.getvalue())


def test_fit_ends_with_what_came_out(run: Finished) -> None:
    lines = dict(line.split(maxsplit=1) for line in run.said.splitlines()[-5:])
    assert list(lines) == ["run", "metric", "grid", "curves", "wandb"]
    assert lines["run"] == str(run.folder)
    found = {row["images_seen"]: row["metric/fd_digits"] for row in read_metrics(run.folder / "metrics.csv")}
    best = min((at for at in found if at), key=lambda at: found[at])
    assert lines["metric"] == (
        f"metric/fd_digits {found[128]:.4g}, best {found[best]:.4g} after {best} images"
    )
    assert Path(lines["grid"]) == run.folder / "samples" / "000000128.png"
    for picture in (lines["grid"], lines["curves"]):
        assert min(Image.open(picture).size) > 100
    synced = lines["wandb"].removeprefix("offline; to upload it: wandb sync ")
    assert list(Path(synced).parent.glob(Path(synced).name)), "the folder to upload is there"


def test_a_run_lives_in_one_folder(run: Finished) -> None:
    names = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*")}
    assert names >= {
        "config.yaml", "metrics.csv", "curves.png", "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        "samples/reals.png", "samples/000000000.png", "wandb",
    }  # fmt: skip


def test_the_resolved_recipe_runs_again(run: Finished, tmp_path: Path) -> None:
    resolved = run.folder / "config.yaml"
    recipe = Recipe(["--config", str(resolved)], "validate")
    assert recipe.folder.path.parent == run.folder.parent  # beside the first, not inside
    assert recipe.ckpt_path is None
    assert recipe.config.model.init_args.generator.init_args.widths == [8, 8]
    assert recipe.config.trainer.max_steps == 4
    assert recipe.name == "digits"
    recipe.model.load_state_dict(GAN.load_from_checkpoint(run.checkpoint).state_dict())


def drawn(run: Finished, out: Path, *options: str) -> torch.Tensor:
    """What `litgan sample` writes, after a look at the picture beside it."""
    cli.main(["sample", run.checkpoint, "--count", "12", "--out", str(out), *options])
    (tensor,), (picture,) = out.glob("*.pt"), out.glob("*.png")
    samples = torch.load(tensor, weights_only=True)
    expected = Digits().decode(samples).render().numpy()
    np.testing.assert_array_equal(np.array(Image.open(picture)), expected)
    return samples


def test_sample_draws_from_the_average(
    run: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = drawn(run, tmp_path)
    assert capsys.readouterr().out.split() == [str(tmp_path / "samples_seed0.png")]
    assert torch.equal(samples, GAN.load_from_checkpoint(run.checkpoint).sample(12))


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--seed", "5"], {"seed": 5}),
        (["--labels", "7"], {"condition": [7]}),
        (["--labels", "3,1"], {"condition": [3, 1]}),
        (["--truncation", "0.3"], {"truncation": 0.3}),
        (["--raw-weights"], {"ema": False}),
    ],
)
def test_sample_obeys(options: list[str], arguments: dict, run: Finished, tmp_path: Path) -> None:
    gan = GAN.load_from_checkpoint(run.checkpoint)
    samples = drawn(run, tmp_path, *options)
    assert torch.equal(samples, gan.sample(12, **arguments))
    assert not torch.equal(samples, gan.sample(12))


def test_evaluate_ends_with_one_json_object(
    run: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "metrics.json"
    cli.main(["evaluate", run.checkpoint, "--count", "300", "--out", str(out)])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found == json.loads(out.read_text())
    last = read_metrics(run.folder / "metrics.csv")[-1]
    for key in ("metric/fd_digits", "metric/kid", "metric/precision", "metric/recall"):
        assert found[key] == pytest.approx(last[key], rel=1e-6, abs=1e-12), "what the run measured at its end"
    assert found["images_seen"] == 128
    protocol = found["protocol"]
    assert (protocol["weights"], protocol["fake_count"], protocol["split"]) == ("ema", 300, "train")

    cli.main(["evaluate", run.checkpoint, "--count", "300", "--raw-weights"])
    raw = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert raw["protocol"]["weights"] == "raw"
    assert raw["metric/fd_digits"] != found["metric/fd_digits"]


def test_validate_measures_with_the_recipe(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--config", str(run.folder / "config.yaml"), "--ckpt_path", run.checkpoint]
    before = sorted(run.folder.rglob("*"))
    cli.main(["validate", *files])
    said = capsys.readouterr().out
    wanted = read_metrics(run.folder / "metrics.csv")[-1]["metric/fd_digits"]
    shown = next(line for line in said.splitlines() if "metric/fd_digits" in line)
    assert float(shown.replace("│", " ").split()[-1]) == pytest.approx(wanted, rel=1e-4)
    assert sorted(run.folder.rglob("*")) == before, "leaves nothing behind"


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
    }.get(verb, "--out")
    explained = said[said.rindex(f"\n  {option} ") :].split("--")[1]
    assert len(explained.split()) > 5, "an option is explained"


@pytest.mark.spawn
def test_the_command_runs_as_a_module(run: Finished, tmp_path: Path) -> None:
    arguments = ["sample", run.checkpoint, "--count", "4", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "litgan", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'samples_seed0.png'}\n"), done.stderr


def test_interpolate_walks_in_a_circle(run: Finished, tmp_path: Path) -> None:
    """Every picture is a sample of its own, and the corners are the first samples of the same seed."""
    out = tmp_path / "deep" / "loop.gif"
    cli.main(
        ["interpolate", run.checkpoint, "--out", str(out), "--points", "3", "--steps", "4", "--seed", "1"]
    )
    film = Image.open(out)
    assert film.n_frames == 12 and film.info["loop"] == 0
    samples = GAN.load_from_checkpoint(run.checkpoint).sample(3, seed=1, condition=[0])
    corners = [Digits().decode(one[None]).render().numpy().astype(float) for one in samples]
    for corner in range(3):
        film.seek(4 * corner)
        errors = [np.abs(np.array(film.convert("RGB")) - expected).max() for expected in corners]
        assert errors[corner] <= 8  # of 255: a GIF's palette
        assert min(errors[:corner] + errors[corner + 1 :]) > 16


def test_a_walk_needs_two_points(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["interpolate", run.checkpoint, "--points", "1"])
    assert "goes nowhere: give at least 2 and 1" in capsys.readouterr().err
