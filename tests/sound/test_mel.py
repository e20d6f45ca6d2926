"""Log-mel spectrograms against torchaudio's and closed forms."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import refuses

torchaudio = pytest.importorskip("torchaudio")

from litgan.data import Derived  # noqa: E402
from litgan.sound import MelSpectrogram, Tones  # noqa: E402

SMALL: dict[str, Any] = {"sample_rate": 8_000, "n_fft": 256, "hop": 64, "window": 200, "n_mels": 32}


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) / 4


@pytest.mark.parametrize("length", [256, 1_000, 4_096])
@pytest.mark.parametrize("options", [{}, {"fmin": 100.0, "fmax": 3_000.0}])
def test_it_is_the_logarithm_of_torchaudios_amplitudes(length: int, options: dict[str, float]) -> None:
    waves, mel = noise(3, 1, length), MelSpectrogram(**SMALL, **options)
    theirs = torchaudio.transforms.MelSpectrogram(
        8_000, 256, 200, 64, options.get("fmin", 0.0), options.get("fmax"), n_mels=32, power=1.0,
        center=False, norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    padded = torch.nn.functional.pad(waves, (96, 96), mode="reflect")[:, 0]
    found = mel(waves)
    assert found.shape == (3, 32, length // 64) and found.dtype == torch.float32
    torch.testing.assert_close(found, theirs(padded).clamp_min(1e-5).log(), rtol=0, atol=2e-4)


def test_the_defaults_are_the_frames_of_hifi_gan() -> None:
    assert MelSpectrogram(fmax=8_000)(noise(2, 1, 8_192)).shape == (2, 80, 32)


def test_a_tone_is_in_its_band_and_a_frame_in_its_time() -> None:
    """Slaney's scale is linear to 1 kHz: bands of 4 kHz, 35.2 mels, are 1.07 mels or 71 Hz apart."""
    mel, time = MelSpectrogram(**SMALL), torch.arange(2_048) / 8_000
    for frequency in (200.0, 500.0, 800.0):
        levels = mel(torch.sin(2 * math.pi * frequency * time).view(1, 1, -1))[0, :, 10]
        assert abs(levels.argmax().item() - (frequency / (200 / 3) / (35.163 / 33) - 1)) <= 0.5
    click = torch.zeros(1, 1, 2_048)
    click[..., 1_000] = 1.0
    assert mel(click).sum(1).argmax().item() == 1_000 // 64


def test_levels_are_natural_logarithms_above_a_floor() -> None:
    mel, waves = MelSpectrogram(**SMALL), noise(1, 1, 1_024)
    torch.testing.assert_close(
        mel(waves) - mel(waves / 10), torch.full((1, 32, 16), math.log(10)), rtol=0, atol=1e-3
    )
    assert mel(torch.zeros(1, 1, 1_024)).unique().tolist() == pytest.approx([math.log(1e-5)])
    both = torch.cat([waves, waves.flip(2)], 1)
    torch.testing.assert_close(mel(both), mel(both.mean(1, keepdim=True)))


def test_it_is_differentiable_in_double_precision_at_any_stage() -> None:
    mel = MelSpectrogram(**SMALL, fmin=30.0)
    with torch.inference_mode():
        mel(noise(1, 1, 320))
    waves = noise(1, 1, 320).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mel(x)[:, ::7, ::2], waves, eps=1e-6, atol=1e-3)


def test_autocast_changes_nothing_and_copies_are_equal() -> None:
    waves, mel = noise(2, 1, 512), MelSpectrogram(**SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mel(waves), pickle.loads(pickle.dumps(mel))(waves))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mel(waves)
    assert torch.equal(mixed, mel(waves))


@pytest.mark.parametrize(
    "wrong", [{"hop": 65}, {"window": 300}, {"fmax": 5_000.0}, {"fmin": 4_000.0}, {"n_mels": 0}]
)
def test_options_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    refuses(lambda: MelSpectrogram(**(SMALL | wrong)), next(iter(wrong)))


def test_waves_that_do_not_fit_are_named() -> None:
    for shape in ((2, 1_024), (2, 1, 96)):
        refuses(
            lambda shape=shape: MelSpectrogram(**SMALL)(torch.zeros(shape)),
            r"longer than 96 samples, not \[2, ",
        )


def test_the_data_of_a_vocoder_are_sounds_and_their_spectrograms(tmp_path: Path) -> None:
    """For files of one's own too, of any length; and they are drawn."""
    mel = MelSpectrogram(**SMALL)
    data = Derived(Tones(length=2_048, sample_rate=8_000, samples=40), mel, batch_size=4)
    real, condition = next(iter(data.train_dataloader()))
    assert data.condition == (32, 32) and torch.equal(condition, mel(real))
    assert torch.equal(condition, torch.cat([mel(one) for one in real.split(1)])), "each row by itself"
    assert data.decode_condition(condition).render(4).shape == data.decode(real).render(4).shape
    soundfile = pytest.importorskip("soundfile")
    wave = torch.sin(torch.arange(5_000) / 4)
    soundfile.write(tmp_path / "mine.wav", wave.numpy() / 2, 8_000, subtype="FLOAT")
    found = data.read_condition(tmp_path / "mine.wav")
    torch.testing.assert_close(found, mel((wave - wave.mean()).view(1, 1, -1))[0], rtol=0, atol=0.05)
