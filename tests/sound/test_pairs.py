"""From a sound to a sound: vocoder and codec learn, resume to the bit, and make sounds of one's own files."""

from __future__ import annotations

import pickle
import wave
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from litgan import GAN, cli
from litgan.data import Derived, Identity, Transform
from litgan.losses import LeastSquares
from litgan.networks.quantizers import VectorQuantizer
from litgan.recipe import Recipe
from litgan.reconstruction import AuxiliaryLoss, FeatureMatching
from litgan.sound import (
    HiFiGANDiscriminator,
    HiFiGANGenerator,
    MelL1,
    MelSpectrogram,
    MultiResolutionSTFT,
    SoundStatistics,
    Tones,
    WaveCodec,
)
from litgan.sound.tones import tone_errors

torchaudio = pytest.importorskip("torchaudio")
RECIPES = Path(__file__).parents[2] / "configs" / "sound"
QUIET = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"] + [
    f"--{name}.every=0" for name in ("realism", "samples", "gradients")
]  # fmt: skip


def mel() -> MelSpectrogram:
    return MelSpectrogram(4_000, 64, 16, 64, 8)


def vocoder() -> dict[str, Any]:
    generator = partial(HiFiGANGenerator, channels=8, rates=(4, 4), kernels=(3,), dilations=((1,),))
    return {"generator": generator, "reconstruction": [MelL1(mel()), FeatureMatching(2.0)]}


def codec() -> dict[str, Any]:
    quantizer = partial(VectorQuantizer, 8, 4)
    generator = partial(WaveCodec, quantizer=quantizer, stages=2, strides=(2, 3), widths=(4, 4, 4))
    terms = [MultiResolutionSTFT(resolutions=((64, 16, 64),)), AuxiliaryLoss()]
    return {"generator": generator, "reconstruction": terms}


@pytest.mark.parametrize(("options", "function"), [(vocoder, mel), (codec, Identity)])
def test_a_resumed_run_is_the_straight_run(options, function, make_trainer, tmp_path: Path) -> None:
    def train(iterations: int, ckpt_path: Path | None = None) -> dict[str, torch.Tensor]:
        adam = partial(torch.optim.AdamW, lr=1e-3, betas=(0.8, 0.99))
        transform: Transform = function()
        data = Derived(Tones(samples=40, length=256, gain=(-6, 0), shift=9), transform, batch_size=8)
        gan = GAN(
            discriminator=partial(HiFiGANDiscriminator, period_widths=(4, 8), periods=(2, 3), scales=0),
            generator_optimizer=adam, discriminator_optimizer=adam, sample_shape=(1, 256),
            condition=data.condition, loss=LeastSquares(), adversarial_weight=2.0, **options(),
        )  # fmt: skip
        torch.manual_seed(iterations)  # what the process drew before is of no account
        trainer = make_trainer(iterations)
        trainer.fit(gan, datamodule=data, ckpt_path=ckpt_path)
        trainer.save_checkpoint(tmp_path / "cut.ckpt")
        return {name: value.clone() for name, value in gan.state_dict().items()}

    straight = train(6)
    train(3)
    resumed = train(6, tmp_path / "cut.ckpt")
    assert [name for name in straight if not torch.equal(straight[name], resumed[name])] == []


def test_statistics_take_rate_and_amplitudes_of_the_sounds_that_conditions_are_derived_from() -> None:
    data, statistics = Derived(Tones(sample_rate=3_000, mu_law=255), Identity()), SoundStatistics()
    statistics.setup(data)
    assert statistics.mu_law == 255
    assert pickle.loads(pickle.dumps(data)).sample_rate == 3_000
    with pytest.raises(AttributeError, match=r"Tones.*no_such"):
        data.no_such  # noqa: B018


@pytest.mark.train
def test_the_codec_returns_each_tone(tmp_path: Path) -> None:
    """Within 2 % of the frequency of the held-out tone that it was given."""
    path = RECIPES / "tones_codec.yaml"
    recipe = Recipe(["--config", str(path), f"--trainer.default_root_dir={tmp_path}", *QUIET])
    data: Any = recipe.datamodule
    tones, condition = data.data, data.eval_conditions(400, "test")
    reals = torch.cat([real for real, _ in data.real_batches(400, split="test")])
    wanted = tone_errors(reals[:, 0], tones.frequencies, tones.sample_rate)[1]

    def right() -> float:
        fakes = recipe.model.sample(400, condition=condition)
        error, which = tone_errors(fakes[:, 0], tones.frequencies, tones.sample_rate)
        return ((error < 0.02) & (which == wanted)).float().mean().item()

    assert right() < 0.3
    recipe.trainer.fit(recipe.model, datamodule=data)
    print(f"{right():.1%} of the tones")
    assert right() >= 0.95


def test_a_file_of_one_s_own_of_any_length_goes_through_the_codec(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    cli.main([
        "fit", "--config", str(RECIPES / "tones_codec.yaml"), "--trainer.max_steps=1",
        "--data.data.samples=64", *QUIET, f"--trainer.default_root_dir={tmp_path}",
    ])  # fmt: skip
    (checkpoint,) = tmp_path.glob("tones_codec/*/checkpoints/last.ckpt")
    soundfile.write(tmp_path / "mine.flac", torch.sin(torch.arange(3_300) / 5).numpy() / 2, 4_000)
    cli.main(["sample", str(checkpoint), f"--input={tmp_path / 'mine.flac'}", f"--out={tmp_path / 'out'}"])
    with wave.open(str(tmp_path / "out" / "mine.wav")) as file:
        assert file.getnframes() - 400 == 3_300  # behind each sound stands a pause
