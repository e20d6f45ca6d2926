"""Two channels, from files to samples."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest
import torch

from litgan import cli
from litgan.noise import Noise
from litgan.sound import AudioBatch, Sound, SoundStatistics

soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed: litgan[sound]")
RATE = 44_100
RECIPE = Path(__file__).parents[2] / "configs" / "sound" / "drums_stereo.yaml"


def write(path: Path, left: torch.Tensor, *others: torch.Tensor) -> None:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, torch.stack([left, *others], 1).numpy(), RATE, subtype="FLOAT")


def test_both_channels_are_read_from_one_onset_at_one_gain(tmp_path: Path) -> None:
    square, silence = torch.tensor([1.0, -1.0]).repeat(64), torch.zeros(100)
    write(
        tmp_path / "a.wav",
        torch.cat([silence, 0.5 * square]),
        torch.cat([silence, silence[:10], 0.25 * square[:118]]),
    )
    write(tmp_path / "b.wav", torch.cat([silence, 0.3 * square]))
    stored, _ = Sound(str(tmp_path), sample_rate=RATE, length=64, stereo=True).load()
    assert stored.shape == (2, 2, 64)
    assert stored[0, 0].tolist() == [32_767, -32_767] * 32
    assert stored[0, 1, :10].abs().max() < 2 and stored[
        0, 1, 10:
    ].abs().float().mean().item() == pytest.approx(16_384, abs=40)
    assert torch.equal(stored[1, 0], stored[1, 1]), "one channel is repeated"


def test_channels_in_opposite_phase_are_no_silence_in_stereo(tmp_path: Path) -> None:
    square = torch.tensor([1.0, -1.0]).repeat(64)
    write(tmp_path / "a.wav", 0.5 * square, -0.5 * square)
    stored, _ = Sound(str(tmp_path), sample_rate=RATE, length=64, stereo=True).load()
    assert torch.equal(stored[:, 0], -stored[:, 1])
    write(tmp_path / "b.wav", square, square, square)
    with pytest.raises(ValueError, match=r"b\.wav has 3 channels, not 2 or 1: give data\.stereo false"):
        Sound(str(tmp_path), sample_rate=RATE, length=64, stereo=True).load()


def test_a_random_delay_is_the_same_in_both_channels() -> None:
    stored = torch.arange(1, 33, dtype=torch.int16).expand(16, 2, 32)
    varied = Sound(length=32, shift=8, stereo=True).augment(stored, Noise(0, 0, 0, 16, "test"))
    assert torch.equal(varied[:, 0], varied[:, 1]) and len(varied[:, 0, -1].unique()) > 3


def test_what_is_written_has_both_channels(tmp_path: Path) -> None:
    waves = torch.randint(-9_999, 9_999, (3, 2, 400), dtype=torch.int16)
    paths = AudioBatch(waves, RATE).save(tmp_path / "s")
    with wave.open(str(paths[-1])) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, RATE)
        frames = torch.frombuffer(bytearray(file.readframes(20_000)), dtype=torch.int16).view(3, -1, 2)
    assert torch.equal(frames[:, :400].transpose(1, 2), waves) and not frames[:, 400:].any()


def test_pictures_and_metrics_are_of_the_mean_and_feedback_of_each_channel() -> None:
    waves = torch.randint(-9_999, 9_999, (2, 1, 2_048), dtype=torch.int16).expand(-1, 2, -1)
    both, one = AudioBatch(waves, RATE), AudioBatch(waves[:, 0], RATE)
    assert torch.equal(both.render(), one.render())
    feedback = torch.randn(2, 1, 2_048)
    heat = both.render_with_grad(feedback.expand(-1, 2, -1))
    torch.testing.assert_close(heat, one.render_with_grad(feedback), atol=1, rtol=0)
    heat = AudioBatch(torch.cat([waves[:, :1], -waves[:, :1]], 1), RATE).render_with_grad(
        torch.cat([feedback, -feedback], 1)
    )
    below = slice(one.render().shape[0], None)
    torch.testing.assert_close(heat[below], one.render_with_grad(feedback)[below], atol=1, rtol=0)
    features, samples = SoundStatistics(), waves / 32_768
    torch.testing.assert_close(features.features(samples), features.features(samples[:, :1]))


def test_the_recipe_trains_and_samples_by_the_name_of_an_instrument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the size of a toy."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for name in ("kick", "snare", "tom"):
        write(tmp_path / "kit" / f"{name}.wav", *torch.rand(2, 3_000) - 0.5)
    model = {
        "generator.latent_dim": 4, "generator.widths": [8, 6], "generator.n_fft": 64, "generator.hop": 32,
        "discriminator.resolutions": [[64, 16, 8]], "discriminator.widths": [4, 4],
        "discriminator.beside.widths": [4, 4],
    }  # fmt: skip
    options = [f"--model.{name}={value}" for name, value in model.items()]
    data = [f"--data.root={tmp_path / 'kit'}", "--data.length=2048", "--data.batch_size=2"]
    trainer = ["--trainer.max_steps=2", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    runs = f"--trainer.default_root_dir={tmp_path / 'runs'}"
    cli.main(["fit", "--config", str(RECIPE), *data, *options, *trainer, "--realism.every=0", runs])
    (checkpoint,) = (tmp_path / "runs").rglob("last.ckpt")
    cli.main(["sample", str(checkpoint), "--labels=snare", "--count=2", f"--out={tmp_path / 'drawn'}"])
    (path,) = (tmp_path / "drawn").glob("*.wav")
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, RATE)
