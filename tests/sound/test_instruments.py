"""Names of instruments become classes, and files get the class of the instrument that plays them."""

from __future__ import annotations

from pathlib import Path

import pytest

from litgan.sound import Sound
from litgan.sound.instruments import INSTRUMENTS, instrument, label_by_instrument

KIT = """<drumkit_info{}><name>Snares and more</name><instrumentList>
<instrument><id>0</id><name>Kick Hard 2</name><layer><filename>a.wav</filename></layer>
<layer><filename>hat.flac</filename></layer></instrument>
<instrument><layer><filename>b.wav</filename></layer><name>Tom Hi</name></instrument>
<instrument><name>Snare</name><layer><filename>a.wav</filename></layer></instrument>
<instrument><filename>c.wav</filename></instrument></instrumentList></drumkit_info>"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Closed HH", "hihat"), ("Sabian Hat Swish", "hihat"), ('Hi-Hat Open (Paiste Alpha 14")', "hihat"),
        ('Crash/Ride Bell (Paiste Rude 18")', "cymbal"), ("Paiste Bell", "cymbal"), ("Cowbell", "bell"),
        ("Pearl Snare Rimshot", "snare"), ("Rim Click (Pearl Free)", "stick"), ("Side Stick", "stick"),
        ("BassDrum", "kick"), ("a3 - bass drum 4", "kick"), ("Djembe1 Bass", "tom"), ("Pearl Tom 2", "tom"),
        ("Hand Clap", "shaker"), ("Sample: beats_01-10.flac", "other"), ("Whistle", "other"), ("", "other"),
    ],
)  # fmt: skip
def test_the_names_of_instruments_tell_their_class(name: str, expected: str) -> None:
    assert INSTRUMENTS[instrument(name)] == expected


@pytest.mark.parametrize("namespace", ["", ' xmlns="http://www.hydrogen-music.org/drumkit"'])
def test_a_file_has_the_class_of_the_first_instrument_that_plays_it(tmp_path: Path, namespace: str) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "drumkit.xml").write_text(KIT.format(namespace))
    names = ["kit/a.wav", "kit/b.wav", "kit/c.wav", "kit/hat.flac", "kit/my snare.wav", "own/my kick.wav"]
    found = [INSTRUMENTS[label] for label in label_by_instrument(tmp_path, names).tolist()]
    assert found == ["kick", "tom", "other", "kick", "snare", "kick"]


def test_a_damaged_description_of_a_kit_is_named(tmp_path: Path) -> None:
    (tmp_path / "drumkit.xml").write_text("<drumkit_info>")
    with pytest.raises(ValueError, match=r"drumkit\.xml is no XML \(no element found: line 1, column 14\)"):
        label_by_instrument(tmp_path, ["a.wav"])


def test_classes_are_those_of_the_instruments_and_a_third_of_the_files_is_held_out(tmp_path: Path) -> None:
    soundfile, torch = pytest.importorskip("soundfile"), pytest.importorskip("torch")
    for name in ("kick", "snare 1", "snare 2", "tom"):
        soundfile.write(tmp_path / f"{name}.wav", torch.rand(100).numpy() - 0.5, 8_000)
    data = Sound(
        str(tmp_path), sample_rate=8_000, length=64, instruments=True, num_classes=9, holdout_every=3
    )
    named = {
        split: [data.class_names[label] for label in data.load(split)[1].tolist()] for split in data.splits
    }
    assert named == {"train": ["kick", "snare", "tom"], "test": ["snare"]}
    with pytest.raises(ValueError, match="Sound has 9 classes"):
        Sound(num_classes=3, instruments=True)
