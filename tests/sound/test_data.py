"""Data sets of sounds from files of every kind, and tones of known frequencies."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from shared.resuming import same

from litgan import cli
from litgan.noise import Noise, torch_generator
from litgan.sound import Sound, Tones
from litgan.sound.data import DRUMKITS
from litgan.sound.signals import mu_law_decode
from litgan.sound.tones import tone_errors

try:
    import soundfile
except ImportError:
    soundfile = None
needs_soundfile = pytest.mark.skipif(soundfile is None, reason="soundfile is not installed: litgan[sound]")


def write(path: Path, wave: torch.Tensor, rate: int = 8_000, **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.numpy(), rate, **options)


def sine(frequency: float, rate: int, samples: int) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * frequency * torch.arange(samples) / rate)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty sounds of three formats, two rates, one and two channels, in two subfolders."""
    for index in range(20):
        rate = (8_000, 44_100)[index % 2]
        wave = sine(200 + 50 * index, rate, rate // 4)
        wave = torch.stack([wave, wave], 1) if index % 3 else wave
        write(tmp_path / "ab"[index // 10] / f"{index:02d}{('.wav', '.flac', '.ogg')[index % 3]}", wave, rate)
    (tmp_path / "a" / ".hidden.wav").write_text("no sound")
    (tmp_path / "a" / "readme.txt").write_text("no sound")
    return tmp_path


@needs_soundfile
def test_files_of_every_kind_become_windows_of_one_shape_and_every_tenth_is_held_out(folder: Path) -> None:
    data = Sound(str(folder), sample_rate=8_000, length=1_024)
    train = [index for index in range(20) if index % 10 != 9]
    for split, kept in (("train", train), ("test", [9, 19])):
        stored, labels = data.load(split)
        assert stored.shape == (len(kept), 1, 1_024) and stored.dtype == torch.int16 and labels is None
        assert (stored.abs().amax((1, 2)) == 32_767).all(), "each peak at full scale"
        error, which = tone_errors(data.encode(stored)[:, 0], tuple(200.0 + 50 * k for k in kept), 8_000)
        assert which.tolist() == list(range(len(kept))) and error.max() < 0.01, "in order, at their pitch"


@needs_soundfile
def test_a_pack_on_the_command_line_is_the_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("packs") / "pack"
    options = ["--data.sample_rate=8000", "--data.length=1024", "--data.num_classes=2"]
    cli.main(["pack", str(folder), str(out), "--data=litgan.sound.Sound", *options])
    sounds, pack = (
        Sound(str(root), sample_rate=8_000, length=1_024, num_classes=2, mu_law=255, batch_size=6)
        for root in (folder, out)
    )
    for split in sounds.splits:
        assert pack.fingerprint_of(split) == sounds.fingerprint_of(split)
    assert same(list(pack.train_dataloader()), list(sounds.train_dataloader()))
    with pytest.raises(ValueError, match="sample_rate 8000 and the data set 16000"):
        Sound(str(out), length=1_024).load()


@needs_soundfile
def test_labels_are_subfolders(folder: Path) -> None:
    data = Sound(str(folder), sample_rate=8_000, length=1_024, num_classes=2)
    assert data.load()[1].tolist() == [0] * 9 + [1] * 9 and data.class_names == ["a", "b"]
    with pytest.raises(ValueError, match=r"2 subfolders with sounds .* num_classes 2"):
        Sound(str(folder), num_classes=3).load()
    shutil.copy(folder / "a" / "00.wav", folder / "loose.wav")
    with pytest.raises(ValueError, match=r"loose.wav lies in no subfolder"):
        Sound(str(folder), num_classes=2).load()


@needs_soundfile
def test_a_window_begins_at_the_onset_and_ends_in_silence(tmp_path: Path) -> None:
    square = torch.tensor([1.0, -1.0]).repeat(50)
    write(tmp_path / "late.wav", 0.25 * torch.cat([1e-3 * square.repeat(5), square]))
    (stored, _) = Sound(str(tmp_path), sample_rate=8_000, length=256).load()
    assert stored[0, 0, :99].abs().min() > 32_000 and stored[0, 0, 101:].abs().max() == 0


@needs_soundfile
def test_several_windows_a_file_leave_out_the_silent_ones(tmp_path: Path) -> None:
    square = torch.tensor([1.0, -1.0]).repeat(128)
    wave = torch.cat([square, torch.zeros(256), -0.5 * square, square[:100]])
    write(tmp_path / "long.wav", 0.5 * wave)
    (stored, _) = Sound(str(tmp_path), sample_rate=8_000, length=256, windows=9).load()
    assert stored[:, 0].tolist() == [[32_767, -32_767] * 128, [-16_384, 16_384] * 128], "at one gain"
    assert len(Sound(str(tmp_path), sample_rate=8_000, length=256).load()[0]) == 1


@needs_soundfile
def test_a_constant_offset_is_removed_before_anything_is_measured(tmp_path: Path) -> None:
    wave = torch.cat([torch.zeros(8_000), sine(440, 8_000, 8_000)]) + 0.02
    write(tmp_path / "offset.wav", wave, subtype="FLOAT")
    stored = Sound(str(tmp_path), sample_rate=8_000, length=8_000).load()[0][:, 0] / 32_767
    assert stored.std().item() == pytest.approx(0.707, abs=2e-3) and abs(stored.mean().item()) < 1e-3
    assert tone_errors(stored, (440.0,), 8_000)[0].item() < 1e-3
    write(tmp_path / "offset.wav", torch.full((8_000,), 0.3))
    with pytest.raises(ValueError, match=r"offset\.wav is silent"):
        Sound(str(tmp_path)).load()


@needs_soundfile
def test_the_windows_of_a_file_have_one_gain(tmp_path: Path) -> None:
    noise = 5e-4 * torch.randn(7 * 8_000, generator=torch_generator(0)).clamp(-1, 1)
    write(tmp_path / "fading.wav", torch.cat([sine(440, 8_000, 8_000), noise]), subtype="FLOAT")
    stored = Sound(str(tmp_path), sample_rate=8_000, length=8_000, windows=8).load()[0]
    assert len(stored) == 8 and stored[0].abs().max() == 32_767
    assert stored[1:].abs().amax((1, 2)).min() >= 25 and stored[1:].abs().max() <= 34, "60 dB lower"


@needs_soundfile
@pytest.mark.parametrize("suffix", [".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".oga", ".opus", ".WAV"])
def test_every_sound_that_libsndfile_reads_is_read(tmp_path: Path, suffix: str) -> None:
    kinds = {
        ".opus": {"format": "OGG", "subtype": "OPUS"},
        ".oga": {"format": "OGG"},
        ".aif": {"format": "AIFF"},
    }
    write(tmp_path / f"a{suffix}", sine(440, 8_000, 4_000), **kinds.get(suffix, {}))
    stored = Sound(str(tmp_path), sample_rate=8_000, length=2_048).load()[0]
    assert tone_errors(stored[:, 0], (440.0,), 8_000)[0].item() < 0.01


@needs_soundfile
def test_the_summary_counts_what_is_read_held_out_and_left_out(folder: Path) -> None:
    write(folder / "a" / "silent.wav", torch.zeros(100))
    (folder / "b" / "a.m4a").write_bytes(b"no sound that libsndfile reads")
    data = Sound(str(folder), sample_rate=8_000, length=1_024, skip_silence=True)
    expected = "18 samples of 18 files (2 more are held out); left out: 1 .m4a, 1 .txt, 1 silent"
    data.load("test")
    assert data.summary == expected


@needs_soundfile
def test_links_to_folders_are_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    linked = tmp_path_factory.mktemp("linked")
    for name in "ab":
        (linked / name).symlink_to(folder / name)
    assert Sound(str(linked), sample_rate=8_000, length=1_024, num_classes=2).size() == 18


@needs_soundfile
def test_all_unusable_sounds_are_named_at_once_or_left_out(folder: Path) -> None:
    for name in ("a/broken.wav", "b/broken.flac"):
        (folder / name).write_bytes(b"no sound")
    with pytest.raises(
        ValueError, match=r"2 files cannot .*/broken.wav .*/broken.flac .*--data.skip_unusable"
    ):
        Sound(str(folder), sample_rate=8_000).load()
    data = Sound(str(folder), sample_rate=8_000, length=64, skip_unusable=True)
    assert data.size() == 18 and "2 unusable" in data.summary


@needs_soundfile
@pytest.mark.parametrize("rate", [44_101, 7_919, 999_983])
def test_any_sample_rate_is_resampled_in_little_memory(tmp_path: Path, rate: int) -> None:
    write(tmp_path / "odd.wav", sine(440, rate, rate // 4), rate)
    stored = Sound(str(tmp_path), sample_rate=8_000, length=2_000).load()[0]
    assert tone_errors(stored[:, 0], (440.0,), 8_000)[0].item() < 0.01
    path = tmp_path / "odd.wav"
    path.write_bytes(path.read_bytes().replace(rate.to_bytes(4, "little"), (2**31 - 1).to_bytes(4, "little")))
    with pytest.raises(ValueError, match=r"odd\.wav has 2,147,483,647 samples a second"):
        Sound(str(tmp_path)).load()


@needs_soundfile
def test_a_long_file_is_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = torch.cat([torch.zeros(5_000), sine(440, 8_000, 9_000), torch.zeros(3_000)])
    write(tmp_path / "long.wav", torch.stack([wave, wave], 1))
    options = {"sample_rate": 8_000, "length": 2_048, "windows": 9}
    whole = Sound(str(tmp_path), **options).load()[0]
    monkeypatch.setattr("litgan.sound.files.BLOCK", 1_000)
    assert torch.equal(Sound(str(tmp_path), **options).load()[0], whole) and len(whole) == 5


MEMORY = """
import re, sys
from pathlib import Path
from litgan.sound import Sound

def bytes_of(name):
    return 1024 * int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

for windows in (1, 10_000):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = bytes_of("VmRSS")
    Sound(sys.argv[1], 8_000, 16_384, windows).load()
    print(bytes_of("VmHWM") - before)
"""


@needs_soundfile
@pytest.mark.spawn
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_memory_of_a_long_file_is_that_of_the_windows_that_are_read(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    write(path, sine(440, 8_000, 40_000_000))
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    one, all_of_them = (int(line) / path.stat().st_size for line in done.stdout.split())
    assert one < 2 and all_of_them < 5


def test_variations_stay_within_their_ranges_and_reach_their_ends() -> None:
    def augmented(**options) -> torch.Tensor:
        return Sound(length=16, **options).augment(stored, Noise(0, 0, 0, 500))

    stored = torch.zeros(500, 1, 16, dtype=torch.int16)
    stored[..., 0] = 32_767
    assert torch.equal(augmented(), stored)
    delayed = augmented(shift=3)
    assert delayed.dtype == torch.int16 and (delayed.sum(2) == 32_767).all()
    assert delayed[:, 0].argmax(1).bincount().tolist() == pytest.approx([125] * 4, abs=40)
    levels = 20 * (augmented(gain=(-20, -6))[:, 0, 0].double() / 32_767).log10()
    assert levels.max() <= -6 + 1e-3
    assert levels.min() == pytest.approx(-20, abs=0.2) and levels.mean() == pytest.approx(-13, abs=0.6)


def test_variations_depend_on_the_sample_and_not_on_the_rank() -> None:
    data = Sound(length=4_096, shift=8, gain=(-6, 0))
    stored = torch.randint(-32_767, 32_768, (100, 1, 4_096), generator=torch_generator(0)).to(torch.int16)
    for seed in range(20):
        whole = data.augment(stored, Noise(seed, 0, 0, 100))
        assert torch.equal(data.augment(stored[70:81], Noise(seed, 0, 70, 11)), whole[70:81])


@pytest.mark.parametrize("mu_law", [0.0, 255.0])
def test_decoding_is_the_inverse_of_encoding(mu_law: float) -> None:
    data = Sound(length=65_535, mu_law=mu_law)
    stored = torch.arange(-32_767, 32_768).to(torch.int16).expand(1, 1, -1)
    assert torch.equal(data.decode(data.encode(stored)).waves, stored[:, 0])
    assert data.decode(torch.full((1, 1, 65_535), 1.5)).waves.max() == 32_767


def test_the_mu_law_amplifies_what_is_quiet_and_is_part_of_the_fingerprint() -> None:
    quiet = torch.tensor([[[33]]], dtype=torch.int16)  # 60 dB below full scale
    assert Sound(length=1).encode(quiet).item() == pytest.approx(0.001, abs=1e-5)
    assert Tones(length=1, mu_law=255).encode(quiet).item() == pytest.approx(0.041, abs=1e-3)
    assert len({Tones(samples=8, mu_law=mu).fingerprint for mu in (0.0, 8.0, 255.0)}) == 3


@needs_soundfile
def test_unusable_files_and_folders_are_named_in_one_sentence(tmp_path: Path) -> None:
    root = tmp_path / "sounds"
    good, file = sine(200, 8_000, 500), root / "b.wav"

    def refused(sentence: str, kind: type[Exception] = ValueError, split: str = "train", **options) -> None:
        with pytest.raises(kind, match=sentence) as error:
            Sound(str(root), **options).load(split)
        assert "\n" not in str(error.value)

    refused("There is no folder .*sounds", FileNotFoundError)
    root.write_bytes(b"an archive")
    refused("sounds is a file, and sounds are read from a folder: unpack it", NotADirectoryError)
    root.unlink()
    root.mkdir()
    refused("sounds holds no sound", FileNotFoundError)
    write(root / "a.wav", good)
    refused("holds no sound for the split 'test'", FileNotFoundError, "test")
    file.write_bytes(b"RIFF, but no sound")
    refused(r"b.wav cannot be decoded \(.*\)")
    for nothing in (math.nan, math.inf):
        write(file, torch.where(torch.arange(500) == 7, nothing, good), subtype="FLOAT")
        refused("b.wav holds samples that are not finite")
    write(file, torch.zeros(0))
    refused("b.wav holds no samples")
    write(file, torch.stack([good, -good], 1))
    refused("b.wav has channels in opposite phase")
    write(file, torch.zeros(500))
    refused("b.wav is silent")
    assert len(Sound(str(root), skip_silence=True).load()[0]) == 1
    file.unlink()
    refused("a.wav has 8000 samples a second and data.sample_rate is 16000", resample=False)
    assert len(Sound(str(root), resample=False, sample_rate=8_000).load()[0]) == 1


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Sound(length=0), "length 0, sample_rate 16000"),
        (lambda: Sound(length=10, shift=10), "shift 10 is out of range"),
        (lambda: Sound(gain=(0, 3)), "gain from 0 to 3 dB"),
        (lambda: Sound(gain=(0, -3)), "gain from 0 to -3 dB"),
        (lambda: Sound(mu_law=math.nan), "mu_law nan"),
        (lambda: Sound(mu_law=-1), "mu_law -1"),
        (lambda: Sound(windows=0), "windows is 0"),
        (lambda: Tones(frequencies=(100.0, 2_000.0)), r"\[100.0, 2000.0\] Hz .* sample_rate 4000"),
        (lambda: Tones(num_classes=3), "Tones has 4 classes"),
    ],
)
def test_options_out_of_range(build, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "soundfile", None)
        with pytest.raises(ImportError, match=r"soundfile is not installed: pip install litgan\[sound\]"):
            Sound(str(tmp_path)).load()
    monkeypatch.setattr("litgan.sound.data.DRUMKITS", tmp_path / "nowhere")
    monkeypatch.setattr("litgan.sound.data.require", lambda *_: None)
    with pytest.raises(FileNotFoundError, match=r"apt-get install hydrogen-drumkits"):
        Sound().load()


@needs_soundfile
def test_only_resampling_needs_torchaudio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    write(tmp_path / "a.wav", sine(200, 8_000, 500))
    assert len(Sound(str(tmp_path), sample_rate=8_000).load()[0]) == 1
    with pytest.raises(ImportError, match=r"torchaudio is not installed: pip install litgan\[sound\]"):
        Sound(str(tmp_path), sample_rate=4_000).load()


@pytest.mark.heavy
@needs_soundfile
@pytest.mark.skipif(not DRUMKITS.is_dir(), reason="Debian's hydrogen-drumkits is not installed")
def test_the_drum_kits() -> None:
    data = Sound(length=8_192, skip_silence=True)
    assert (data.size(), data.size("test")) == (600, 66), "668 files, two of them silent"


def test_tones_have_the_frequencies_that_are_promised() -> None:
    data = Tones(samples=200)
    stored, labels = data.load()
    assert stored.shape == (200, 1, 1_024) and labels.bincount().tolist() == [50] * 4
    error, which = tone_errors(stored[:, 0], data.frequencies, data.sample_rate)
    assert torch.equal(which, labels) and error.max() < 0.002
    assert torch.equal(stored, Tones(samples=200, seed=1).load()[0]), "whatever the run's seed"
    assert not torch.equal(stored, data.load("test")[0])
    late, early = stored[..., -256:].int().abs().amax((1, 2)), stored[..., :256].int().abs().amax((1, 2))
    assert (early > 30_000).all() and (late < early / 8).all() and len(late.unique()) > 50, "they decay"


def test_wrong_tones_have_large_errors() -> None:
    time = torch.arange(1_024) / 4_000
    waves = torch.stack([torch.sin(2 * math.pi * f * time) for f in (440.0, 440.0 * 1.05, 660.0 * 0.99)])
    error, which = tone_errors(waves, (440.0, 660.0), 4_000)
    assert error.tolist() == pytest.approx([0, 0.05, 0.01], abs=2e-3) and which.tolist() == [0, 0, 1]
    noise = torch.randn(1_000, 1_024, generator=torch.Generator().manual_seed(0))
    assert (tone_errors(noise, Tones().frequencies, 4_000)[0] < 0.02).float().mean() < 0.1


@needs_soundfile
@pytest.mark.parametrize("mu_law", [0.0, 255.0])
def test_a_file_of_one_s_own_is_read_whole_at_the_rate_of_the_data(tmp_path: Path, mu_law: float) -> None:
    """Silence before the onset and all that is longer than a window included."""
    wave = torch.cat([torch.zeros(8_820), sine(440, 44_100, 88_200)])
    write(tmp_path / "mine.flac", torch.stack([wave, wave / 2], 1), 44_100)
    data = Tones(sample_rate=8_000, length=1_024, mu_law=mu_law)
    sample = mu_law_decode(data.read_sample(tmp_path / "mine.flac"), mu_law)
    assert sample.shape == (1, 17_600) and sample.abs().max() == pytest.approx(1, abs=1e-6)
    assert sample[:, :1_500].abs().max() < 0.01 and tone_errors(sample[:, 1_700:], (440.0,), 8_000)[0] < 1e-3
    write(tmp_path / "silent.wav", torch.zeros(100))
    with pytest.raises(ValueError, match=r"silent.wav is silent"):
        data.read_sample(tmp_path / "silent.wav")
