"""Training and commands on music: a GAN learns a scale."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from shared.resuming import check_six_are_three_and_three, player

from litgan import cli
from litgan.loggers import read_metrics
from litgan.losses import Relativistic
from litgan.music import PianoRollDiscriminator, PianoRollGenerator, Scales
from litgan.penalties import R1, R2
from litgan.recipe import Recipe

RECIPE = Path(__file__).parents[2] / "configs" / "music" / "scales.yaml"


@pytest.mark.train
def test_the_recipe_learns_the_scale(tmp_path) -> None:
    recipe = Recipe(
        ["--config", str(RECIPE), "--trainer.default_root_dir", str(tmp_path), "--trainer.logger", "false",
         "--trainer.enable_progress_bar", "false", "--realism.every", "0", "--samples.every", "0",
         "--gradients.every", "0"]
    )  # fmt: skip
    data, gan = recipe.datamodule, recipe.model
    untrained = data.in_scale(gan.sample(500))
    recipe.trainer.fit(gan, datamodule=data)
    rolls = gan.sample(500)
    right, sounding = data.in_scale(rolls), rolls.sum(3).mean().item()
    print(f"{right:.1%} of the notes in the scale, {sounding:.0%} of the steps sound")
    assert untrained < 0.7
    assert right >= 0.95
    assert 0.85 < sounding < 1, "the data: 93 %"
    pitches = rolls.sum((0, 1, 2))[data.allowed]
    assert (pitches > 0.02 * pitches.sum()).sum() >= 12, "and nearly all 14 of them are used"
    assert len(rolls.unique(dim=0)) > 480
    assert gan.images_seen == 44_800, "within this budget"


def test_six_iterations_are_three_and_three(tiny_gan, make_trainer, tmp_path) -> None:
    """With lazy penalties and transposition."""
    options = {
        "generator": partial(PianoRollGenerator, shared_dim=4, private_dim=2, widths=(8, 8)),
        "discriminator": partial(PianoRollDiscriminator, private_width=8, widths=(8, 8)),
        "sample_shape": Scales().sample_shape, "loss": Relativistic(),
        "penalties": [R1(0.1, interval=2), R2(0.1, interval=4)],
    }  # fmt: skip
    data = {"samples": 40, "batch_size": 8, "transpose": 4}
    check_six_are_three_and_three(player(tiny_gan, Scales, make_trainer), options, data, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The folder of a short run of the recipe."""
    pytest.importorskip("mido", reason="mido is not installed: pip install litgan[music]")
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        patch.setenv("LITGAN_CACHE", str(root / "cache"))
        cli.main(
            ["fit", "--config", str(RECIPE), "--trainer.max_steps=6", "--data.batch_size=8",
             "--data.samples=40", "--samples.count=5", "--samples.every=16", "--gradients.every=16",
             "--realism.every=48", "--realism.count=40", "--trainer.enable_progress_bar=false",
             f"--trainer.default_root_dir={root}"]
        )  # fmt: skip
    (metrics,) = root.glob("scales/*/metrics.csv")
    return metrics.parent


def test_a_run_writes_rolls_and_measures_them(run: Path) -> None:
    names = {path.name for path in (run / "samples").iterdir()}
    assert {"reals.png", "reals.mid", "000000000.mid", "000000048.mid", "000000048.png"} <= names
    assert "000000032_feedback.png" in names
    last = read_metrics(run / "metrics.csv")[-1]
    assert {"metric/fd_music", "metric/interval_js", "metric/in_scale", "metric/repetition"} <= last.keys()
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["class_path"] == "litgan.music.Scales"


def test_sampled_midi_files_have_the_right_tempo_notes_and_length(run: Path, tmp_path: Path) -> None:
    import mido

    cli.main(["sample", str(run / "checkpoints" / "last.ckpt"), "--count", "7", "--out", str(tmp_path)])
    samples = torch.load(tmp_path / "samples_seed0.pt")
    assert samples.shape == (7, 2, 16, 24) and set(samples.unique().tolist()) <= {0.0, 1.0}
    file = mido.MidiFile(tmp_path / "samples_seed0.mid")
    tempo = next(message.tempo for message in file.tracks[0] if message.type == "set_tempo")
    assert round(mido.tempo2bpm(tempo)) == 90 and len(file.tracks) == 3
    on = [message.note for track in file.tracks for message in track if message.type == "note_on"]
    assert on and {pitch - 48 for pitch in on} == set(samples.sum((0, 1, 2)).nonzero().flatten().tolist())
    bars = 7 * 2 + 6
    assert bars - 3 < file.length / (4 * 60 / 90) <= bars + 1e-3, "the last sample may end in silence"


def test_evaluation_and_interpolation(run: Path, tmp_path: Path, capsys) -> None:
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    cli.main(["evaluate", checkpoint, "--count", "40", "--split", "test"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["metric/fd_music"] > 0 and 0 <= result["metric/in_scale"] <= 1
    assert result["protocol"]["extractor"] == "music" and result["protocol"]["split"] == "test"
    cli.main(
        ["interpolate", checkpoint, "--out", str(tmp_path / "walk.gif"), "--points", "2", "--steps", "3"]
    )
    with Image.open(tmp_path / "walk.gif") as animation:
        assert animation.n_frames >= 2
