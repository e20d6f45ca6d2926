"""Training on the toy grammar: it learns, resumes and works with every command."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from shared.resuming import check_six_are_three_and_three, player

from litgan import GAN, cli
from litgan.callbacks import Samples
from litgan.checkpoints import build_data, read
from litgan.losses import NonSaturating, Wasserstein
from litgan.penalties import R1, WGANGP
from litgan.schedules import Linear
from litgan.text import CausalTextDiscriminator, Grammar, RecurrentTextGenerator, Text

RECIPE = Path(__file__).parents[2] / "configs" / "text" / "grammar.yaml"
ADAM = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99))


def small(data, **options):
    """A GAN of two small networks for the windows of `data`."""
    defaults = {
        "generator": partial(
            RecurrentTextGenerator, latent_dim=8, width=16, temperature=Linear(2.0, 0.5, 100)
        ),
        "discriminator": partial(CausalTextDiscriminator, width=12, dilations=(1, 2)),
        "loss": NonSaturating(), "generator_optimizer": ADAM, "discriminator_optimizer": ADAM,
        "sample_shape": data.sample_shape,
    }  # fmt: skip
    return GAN(**(defaults | options))


@pytest.mark.train
def test_the_recipe_learns_valid_sentences(tmp_path):
    from litgan.recipe import Recipe

    recipe = Recipe(["--config", str(RECIPE), "--trainer.default_root_dir", str(tmp_path),
                     "--realism.every", "0", "--trainer.logger", "false",
                     "--trainer.enable_progress_bar", "false"])  # fmt: skip

    def quality() -> tuple[float, int]:
        lines = recipe.datamodule.decode(recipe.model.sample(2000)).lines
        return Grammar.valid(lines), len({line for line in lines if Grammar.valid([line])})

    assert quality() == (0.0, 0)
    recipe.trainer.fit(recipe.model, datamodule=recipe.datamodule)
    valid, distinct = quality()
    print(f"{valid:.1%} valid, {distinct} different ones of 400")
    assert valid >= 0.8, "a Markov chain of order 3 writes 2 %"
    assert distinct >= 350
    assert recipe.model.images_seen == 38_400, "within this budget"


@pytest.mark.parametrize(
    "options",
    [
        {"penalties": [R1(0.1, interval=2)]},
        {"loss": Wasserstein(), "penalties": [WGANGP(interval=4)], "discriminator_steps": 2},
    ],
    ids=["lazy R1", "WGAN-GP, two steps"],
)
def test_six_iterations_are_three_and_three(options, make_trainer, tmp_path):
    train = player(partial(small, Grammar()), Grammar, make_trainer)
    check_six_are_three_and_three(train, options, {"samples": 40, "batch_size": 8}, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of the recipe: four iterations of 16."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()):
        patch.setenv("LITGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("LITGAN_RUN_ID", "")
        root = tmp_path_factory.mktemp("runs")
        cli.main([
            "fit", "--config", str(RECIPE), "--trainer.max_steps=4", "--trainer.log_every_n_steps=2",
            "--data.batch_size=16", "--data.samples=300", "--realism.count=200", "--samples.count=4",
            "--gradients.every=32", "--gradients.count=3", "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={root}",
        ])  # fmt: skip
        (folder,) = root.glob("grammar/*")
        yield folder


def test_fit_saves_samples_of_text(run):
    reals = (run / "samples" / "reals.txt").read_text(encoding="utf-8").splitlines()
    assert len(reals) == 4 and Grammar.valid(reals) == 1.0
    fakes = (run / "samples" / "000000064.txt").read_text(encoding="utf-8").splitlines()
    assert len(fakes) == 4 and all(len(line) == Grammar.LENGTH for line in fakes)
    for name in ("reals.png", "000000064.png", "000000064_feedback.png"):
        assert Image.open(run / "samples" / name).size[0] > 24 * 5
    assert {"metric/fd_text", "metric/js4", "metric/real_words", "metric/longest_copy"} <= set(
        (run / "metrics.csv").read_text().splitlines()[0].split(",")
    )


def test_sample_writes_utf_8_of_the_right_length(run, tmp_path, capsys):
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    cli.main(["sample", checkpoint, "--count", "12", "--out", str(tmp_path)])
    picture, text = capsys.readouterr().out.split()
    with open(text, encoding="utf-8", newline="") as file:
        lines = file.read().split("\n")
    assert lines.pop() == "" and len(lines) == 12 and {len(line) for line in lines} == {Grammar.LENGTH}
    samples = torch.load(tmp_path / "samples_seed0.pt", weights_only=True)
    assert lines == Grammar().decode(samples).lines
    assert Image.open(picture).size[1] % 12 == 0


def test_evaluate_measures_against_held_out_text(run, capsys):
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    cli.main(["evaluate", checkpoint, "--count", "200", "--split", "test"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["protocol"]["extractor"] == "text" and found["protocol"]["split"] == "test"
    assert 0 < found["metric/js1"] < 1 and found["metric/fd_text"] > 0


def test_interpolate_saves_an_animation_of_lines(run, tmp_path):
    out = tmp_path / "loop.gif"
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    cli.main(["interpolate", checkpoint, "--out", str(out), "--points", "2", "--steps", "3"])
    with Image.open(out) as animation:
        assert animation.size[0] > 24 * 5 and animation.n_frames >= 2


def test_a_checkpoint_decodes_when_the_file_is_deleted(make_trainer, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("a bad cab ate a fade " * 60)
    data = Text(str(path), length=8, alphabet_size=12, batch_size=8)
    gan, trainer = small(data), make_trainer(1, callbacks=[Samples(every=8, count=2)])
    gan.recipe = {"data": {"class_path": "litgan.text.Text",
                           "init_args": {"path": str(path), "length": 8, "alphabet_size": 12}}}  # fmt: skip
    trainer.fit(gan, datamodule=data)
    trainer.save_checkpoint(tmp_path / "text.ckpt")
    path.unlink()
    samples = gan.sample(5)
    assert build_data(read(tmp_path / "text.ckpt"), Text).decode(samples).lines == data.decode(samples).lines
