"""Sounds from end to end: training on four tones, resuming to the bit, and what the commands write."""

from __future__ import annotations

import json
import math
import wave
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litgan import GAN, cli
from litgan.loggers import read_metrics
from litgan.losses import NonSaturating
from litgan.penalties import R1
from litgan.recipe import Recipe
from litgan.sound import HiFiGANDiscriminator, SoundStatistics, Tones, WaveGANDiscriminator, WaveGANGenerator
from litgan.sound.render import PAUSE_SECONDS
from litgan.sound.tones import tone_errors

RECIPE = Path(__file__).parents[2] / "configs" / "sound" / "tones.yaml"


@pytest.mark.train
def test_the_recipe_finds_all_tones(tmp_path: Path) -> None:
    recipe = Recipe(["--config", str(RECIPE), "--trainer.default_root_dir", str(tmp_path),
                     "--trainer.logger", "false", "--trainer.enable_progress_bar", "false",
                     "--realism.every", "0", "--samples.every", "0", "--gradients.every", "0"])  # fmt: skip
    data = recipe.datamodule

    def right() -> torch.Tensor:
        """Share of all samples that lie within 2 % of each frequency."""
        error, which = tone_errors(recipe.model.sample(1_000)[:, 0], data.frequencies, data.sample_rate)
        return which[error < 0.02].bincount(minlength=len(data.frequencies)) / 1_000

    assert right().sum() < 0.2
    recipe.trainer.fit(recipe.model, datamodule=data)
    print(f"{right().tolist()} of the samples at {data.frequencies} Hz")
    assert right().sum() >= 0.9
    assert right().min() > 0.05, "no tone is dropped"
    assert recipe.model.images_seen == 32_000, "within this budget"


@pytest.mark.parametrize(
    "discriminator",
    [
        partial(WaveGANDiscriminator, widths=(4, 8)),
        partial(HiFiGANDiscriminator, period_widths=(4, 8), scale_widths=(4,) * 7, periods=(2, 3), scales=2),
    ],
    ids=["wavegan", "hifigan"],
)
def test_a_resumed_run_is_the_straight_run(discriminator, make_trainer, tmp_path: Path) -> None:
    """With shuffled phases, random variations and a penalty that is due in every other step."""

    def train(iterations: int, ckpt_path: Path | None = None) -> dict[str, torch.Tensor]:
        adam = partial(torch.optim.Adam, lr=1e-3, betas=(0.0, 0.99))
        gan = GAN(
            generator=partial(WaveGANGenerator, latent_dim=4, widths=(8, 4)), discriminator=discriminator,
            generator_optimizer=adam, discriminator_optimizer=adam, sample_shape=(1, 256),
            loss=NonSaturating(), penalties=[R1(0.5, interval=2)],
        )  # fmt: skip
        torch.manual_seed(iterations)  # what the process drew before is of no account
        data = Tones(samples=40, length=256, batch_size=8, gain=(-6, 0), shift=9)
        trainer = make_trainer(iterations)
        trainer.fit(gan, datamodule=data, ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "cut.ckpt")
        return {name: value.clone() for name, value in gan.state_dict().items()}

    straight = train(6)
    train(3)
    resumed = train(6, tmp_path / "cut.ckpt")
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of `litgan fit` on the tones, 4 iterations."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITGAN_CACHE", str(root / "cache"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("LITGAN_RUN_ID", "")
        cli.main([
            "fit", "--config", str(RECIPE), "--trainer.max_steps=4", "--trainer.log_every_n_steps=2",
            "--data.samples=64", "--realism.count=60", "--realism.every=64", "--samples.every=64",
            "--gradients.every=64", "--samples.count=8", "--trainer.enable_progress_bar=false",
            f"--trainer.default_root_dir={root}",
        ])  # fmt: skip
    (folder,) = root.glob("tones/*")
    return folder


def read_wav(path: Path, length: int = 1_024, rate: int = 4_000) -> np.ndarray:
    """int16 [N, length] of a file, read by the standard library and, where it is installed, by soundfile."""
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (rate, 1, 2)
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    if find_spec("soundfile"):
        import soundfile

        again, found = soundfile.read(path, dtype="int16")
        assert found == rate and (again == frames).all()
    return frames.reshape(-1, length + round(PAUSE_SECONDS * rate))[:, :length]


def test_fit_leaves_sounds_pictures_and_metrics(run: Path) -> None:
    samples = {path.name for path in (run / "samples").iterdir()}
    assert samples == {
        "reals.png", "reals.wav", "000000000.png", "000000000.wav", "000000064.png", "000000064.wav",
        "000000064_feedback.png", "000000128.png", "000000128.wav", "000000128_feedback.png",
        "gradient_flow.png",
    }  # fmt: skip
    reals = torch.tensor(read_wav(run / "samples" / "reals.wav").astype(np.float32))
    assert len(reals) == 8 and tone_errors(reals, Tones().frequencies, 4_000)[0].max() < 0.002
    header, *_ = (run / "metrics.csv").read_text().splitlines()
    assert {"metric/fd_sound", "metric/centroid_js", "metric/envelope_js"} <= set(header.split(","))


def test_the_commands_write_what_others_can_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    cli.main(["sample", checkpoint, "--count=5", f"--out={tmp_path}"])
    paths = capsys.readouterr().out.splitlines()[-2:]
    assert [Path(line).suffix for line in paths] == [".png", ".wav"]
    drawn = torch.load(Path(paths[1]).with_suffix(".pt"), weights_only=True)
    assert drawn.shape == (5, 1, 1_024)
    assert np.abs(read_wav(Path(paths[1])) / 32_767 - drawn[:, 0].numpy()).max() < 1e-4

    cli.main(["evaluate", checkpoint, "--count=60", "--split=test"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["protocol"]["extractor"] == "sound"
    assert report["protocol"]["digest"] == SoundStatistics().digest
    assert all(math.isfinite(report[f"metric/{name}_js"]) for name in ("centroid", "envelope", "flatness"))

    cli.main(["interpolate", checkpoint, f"--out={tmp_path / 'loop.gif'}", "--points=2", "--steps=3"])
    with Image.open(tmp_path / "loop.gif") as loop:
        assert loop.n_frames == 6
    cli.main(["interpolate", checkpoint, f"--out={tmp_path / 'morph.wav'}", "--points=2", "--steps=3"])
    assert len(read_wav(tmp_path / "morph.wav")) == 6, "one sound after the other"


def test_validate_measures_what_fit_measured_last(run: Path, capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITGAN_CACHE", str(tmp_path))
    checkpoint = str(run / "checkpoints" / "last.ckpt")
    cli.main(["validate", "--config", str(run / "config.yaml"), "--ckpt_path", checkpoint])
    line = next(line for line in capsys.readouterr().out.splitlines() if "metric/fd_sound" in line)
    wanted = read_metrics(run / "metrics.csv")[-1]["metric/fd_sound"]
    assert float(line.replace("│", " ").split()[-1]) == pytest.approx(wanted, rel=1e-4)
