"""Pictures of sounds and WAV files."""

from __future__ import annotations

import math
import wave
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from litgan.noise import Noise
from litgan.render import GAP
from litgan.sound import AudioBatch
from litgan.sound.render import BANDS, PAUSE_SECONDS, WAVE_COLOR, WAVE_HEIGHT, WIDTH, draw_spectrograms
from litgan.sound.signals import hz_to_mel, mu_law_decode, mu_law_encode


def tone(frequency: float, length: int = 4_096, rate: int = 8_000) -> torch.Tensor:
    wave = torch.sin(2 * math.pi * frequency * torch.arange(length) / rate)
    return (32_767 * wave).to(torch.int16)[None]


def lit(picture: torch.Tensor) -> torch.Tensor:
    """The pixels of the waveform."""
    return (picture[:WAVE_HEIGHT] == torch.tensor(WAVE_COLOR)).all(2)


def test_a_tone_is_a_line_in_its_mel_band_below_its_waveform() -> None:
    places = torch.linspace(*hz_to_mel(torch.tensor([30.0, 4_000.0])).tolist(), BANDS + 2)[1:-1]
    for frequency in (250.0, 1_000.0, 3_000.0):
        picture = AudioBatch(tone(frequency), 8_000).render()
        brightness = picture[WAVE_HEIGHT:].float().sum(2)
        band = (places - hz_to_mel(torch.tensor(frequency))).abs().argmin().item()
        assert abs(BANDS - 1 - brightness[:, 20:-20].mean(1).argmax().item() - band) <= 1, "low bands below"
        assert lit(picture).float().mean() > 0.9, "a tone at full scale"


def test_a_spectrogram_is_drawn_as_large_as_its_sound_with_low_bands_below() -> None:
    levels = torch.full((2, BANDS // 2, WIDTH // 2), -11.0)
    levels[0], levels[1, 5, 10] = 0.0, 1.0  # in the second one band at one time is 104 dB above the others
    pictures = draw_spectrograms(levels)
    assert pictures.render(2).shape == AudioBatch(tone(100.0).expand(2, -1), 8_000).render(2).shape
    bright, row = pictures.pixels[1].float().sum(0) > 600, WAVE_HEIGHT + BANDS - 2 * 6
    assert bright[row : row + 2, 20:22].all() and bright.sum() == 4


def test_silence_is_dark_below_a_line() -> None:
    picture = AudioBatch(torch.zeros(1, 4_096, dtype=torch.int16), 8_000).render()
    assert picture[WAVE_HEIGHT:].max() < 10
    assert lit(picture).any(0).all() and lit(picture).sum(0).max() <= 2


@pytest.mark.parametrize(("length", "rate"), [(40, 8_000), (1_000, 4_000), (8_192, 16_000), (65_536, 44_100)])
def test_any_length_and_rate_has_tiles_of_one_size(length: int, rate: int) -> None:
    sounds = AudioBatch(tone(100.0, length, rate).expand(5, -1), rate)
    assert len(sounds) == 5
    assert sounds.render(3).shape == (2 * (WAVE_HEIGHT + BANDS) + GAP, 3 * WIDTH + 2 * GAP, 3)


def test_feedback_is_red_where_a_sound_is_to_be_quieter_and_blue_where_louder() -> None:
    sound = tone(1_000.0) // 2
    feedback = sound.float()[:, None].clone()
    feedback[..., 2_048:] *= -1  # the loss falls as the second half grows
    picture = AudioBatch(sound, 8_000).render_with_grad(feedback, columns=1).float()
    heat = picture[WAVE_HEIGHT + BANDS + GAP :]
    assert heat.shape[:2] == (BANDS, WIDTH)
    red = heat[..., 0] - heat[..., 2]
    assert red[:, 5:55].max() > 200 and red[:, 5:55].min() >= -60
    assert red[:, 70:120].min() < -200 and red[:, 70:120].max() <= 60
    row = red.abs().sum(1).argmax()
    assert red.abs()[: row - 6].max() < 60, "and white elsewhere"


def test_feedback_to_mu_law_samples_is_shown_as_that_to_the_waves() -> None:
    noise = Noise(0, 0, 0, 2).normal(4_096)
    sounds = (noise[:1] * torch.linspace(8_000, 1, 4_096)).clamp(-32_000, 32_000).to(torch.int16)
    waves, direction = sounds / 32_768, noise[1:]
    samples = mu_law_encode(waves, 255).requires_grad_()
    (feedback,) = torch.autograd.grad((mu_law_decode(samples, 255) * direction).square().sum(), samples)

    def shown(feedback: torch.Tensor, mu_law: float = 0.0) -> torch.Tensor:
        return AudioBatch(sounds, 8_000, mu_law).render_with_grad(feedback[:, None]).int()

    plain = shown(2 * waves * direction.square())
    assert (plain - shown(feedback, 255)).abs().max() <= 1
    assert (plain - shown(feedback)).abs().max() > 30


def test_the_file_holds_all_sounds_one_after_the_other(tmp_path: Path) -> None:
    waves = torch.randint(-32_768, 32_768, (3, 1_000)).to(torch.int16)
    png, wav = AudioBatch(waves, 8_000).save(tmp_path / "new" / "grid")
    assert (png.name, wav.name) == ("grid.png", "grid.wav") and len(list(wav.parent.iterdir())) == 2
    with wave.open(str(wav)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8_000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(3, -1)
    assert samples.shape[1] == 1_000 + PAUSE_SECONDS * 8_000 and not samples[:, 1_000:].any()
    assert (samples[:, :1_000] == waves.numpy()).all()


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    sounds = AudioBatch(torch.ones(2, 100, dtype=torch.int16), 8_000)
    _, path = sounds.save(tmp_path / "grid")
    before = path.read_bytes()
    monkeypatch.setattr(wave.Wave_write, "writeframes", fail)
    with pytest.raises(OSError, match="No space"):
        sounds.save(tmp_path / "grid")
    assert path.read_bytes() == before


@pytest.mark.skipif(find_spec("soundfile") is None, reason="soundfile is not installed: litgan[sound]")
def test_wandb_gets_the_first_sounds() -> None:
    import soundfile

    waves = torch.randint(-32_768, 32_768, (12, 1_000)).to(torch.int16)
    audio = AudioBatch(waves, 11_025).wandb_media()["audio"]
    assert len(audio) == 8
    played, rate = soundfile.read(audio[3]._path, dtype="int16")
    assert rate == 11_025 and (played == waves[3].numpy()).all()


@pytest.mark.parametrize("waves", [torch.zeros(2, 8), torch.zeros(8, dtype=torch.int16)])
def test_what_is_no_sound_is_refused(waves: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"Sounds are int16 of shape \[N, T\] or \[N, C, T\], not"):
        AudioBatch(waves, 8_000)
