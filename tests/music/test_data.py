"""MIDI files and chorales as piano rolls, and scales whose correct notes are known."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from litgan.music import Music, PianoRolls, RollBatch, Scales
from litgan.music.data import load_packed, save_packed
from litgan.music.midi import notes_from_roll, to_midi_file
from litgan.music.rolls import to_piano_roll
from litgan.music.scores import list_chorales, read_chorale, read_midi
from litgan.noise import Noise

try:
    import mido
except ImportError:
    mido = None
try:
    import music21
except ImportError:
    music21 = None
needs_mido = pytest.mark.skipif(mido is None, reason="mido is not installed: pip install litgan[music]")
needs_music21 = pytest.mark.skipif(
    music21 is None, reason="music21 is not installed: pip install litgan[music]"
)

TUNE = [
    (0, 0, 4, 24),
    (0, 4, 8, 24),
    (0, 8, 16, 26),
    (1, 0, 16, 12),
]  # track, steps, row: one bar


def write_midi(path: Path, messages: list[list[tuple[str, int, dict]]]) -> Path:
    """Tracks of (kind, ticks since the last message, options), 480 ticks a quarter."""
    file = mido.MidiFile(ticks_per_beat=480)
    for track in messages:
        file.tracks.append(mido.MidiTrack())
        for kind, time, options in track:
            make = mido.MetaMessage if kind == "time_signature" else mido.Message
            file.tracks[-1].append(make(kind, time=time, **options))
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(path)
    return path


def notes(*pitches: int, quarters: float = 1, channel: int = 0) -> list[tuple[str, int, dict]]:
    """One after the other."""
    ticks = round(480 * quarters)
    return [
        (kind, time, {"note": pitch, "channel": channel, "velocity": 64})
        for pitch in pitches
        for kind, time in (("note_on", 0), ("note_off", ticks))
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty pieces of two bars; piece k repeats pitch 48 + k in quarter notes."""
    for index in range(20):
        write_midi(tmp_path / "ab"[index // 10] / f"{index:02d}.mid", [notes(*[48 + index] * 8)])
    (tmp_path / "a" / ".hidden.mid").write_text("no music")
    (tmp_path / "a" / "readme.txt").write_text("no music")
    return tmp_path


def test_repeated_notes_are_separated_by_a_gap_of_one_step() -> None:
    roll = to_piano_roll(TUNE, 0, (2, 16, 48))
    assert roll[0, :, 24].tolist() == [1, 1, 1, 0, 1, 1, 1, 1] + 8 * [0]
    assert roll[0, :, 26].tolist() == 8 * [0] + 8 * [1]
    assert roll[1, :, 12].all() and roll.sum() == 7 + 8 + 16
    assert sorted(notes_from_roll(torch.from_numpy(roll).bool())) == sorted(TUNE)


def test_notes_outside_a_roll_are_dropped_and_notes_across_its_edge_are_cut() -> None:
    crossing = [(0, 0, 6, 3), (0, 6, 7, 3), (0, 14, 30, 5), (0, 5, 8, 48), (0, 5, 8, -1), (2, 5, 8, 7)]
    roll = to_piano_roll(crossing, 5, (2, 16, 48))
    assert roll.nonzero()[1].tolist() == [0, 1, *range(9, 16)], "a note of one step is not shortened"
    assert set(roll.nonzero()[2].tolist()) == {3, 5}


def test_a_roll_can_be_rebuilt_from_its_notes() -> None:
    rolls = torch.rand(20, 2, 24, 6, generator=torch.Generator().manual_seed(0)) < 0.4
    for roll in rolls:
        assert np.array_equal(to_piano_roll(notes_from_roll(roll), 0, tuple(roll.shape)), roll.numpy())


@needs_mido
def test_a_file_written_and_read_again_is_the_same(tmp_path: Path) -> None:
    tune = [*TUNE, (0, 2, 7, 30)]  # a chord, and in no order
    options = {"tracks": 2, "lowest": 36, "steps_per_quarter": 4, "quarters_per_bar": 4, "tempo": 90}
    to_midi_file(tune[::-1], **options).save(tmp_path / "tune.mid")
    score = read_midi(tmp_path / "tune.mid")
    assert score.bars == [(0.0, 4.0)]
    notes_read = [(track, 4 * start, 4 * end, pitch - 36) for track, start, end, pitch in score.notes]
    assert sorted(notes_read) == sorted(tune)


@needs_mido
def test_every_tenth_piece_is_in_the_test_split(folder: Path) -> None:
    data = Music(str(folder), tracks=1)
    train, test = data.load("train")[0], data.load("test")[0]
    assert train.shape == (18, 1, 32, 48) and train.dtype == torch.uint8
    pitches = [(rolls.sum((1, 2)).argmax(1) + 36).tolist() for rolls in (train, test)]
    assert pitches == [[48 + index for index in range(20) if index % 10 != 9], [57, 67]]
    assert train[0, 0, :, 12].tolist() == 7 * [1, 1, 1, 0] + [1, 1, 1, 1], "eight repeated quarters"


@needs_mido
def test_tracks_time_signatures_and_drums_of_a_file(tmp_path: Path) -> None:
    conductor = [
        ("time_signature", 0, {"numerator": 3, "denominator": 4}),
        ("time_signature", 3 * 480, {"numerator": 4, "denominator": 4}),
    ]
    first, drums, second = notes(*[60] * 11), notes(*[40] * 11, channel=9), notes(*[72] * 11, channel=3)
    path = write_midi(tmp_path / "0.mid", [conductor, first, drums, second])
    assert read_midi(path).bars == [(0.0, 3.0), (3.0, 4.0), (7.0, 4.0)]
    for index in range(1, 10):
        write_midi(tmp_path / f"{index}.mid", [first])
    train = Music(str(tmp_path), tracks=3, bars=1).load()[0]
    assert train.shape[1:] == (3, 16, 48)
    assert train[0].sum(1).nonzero().tolist() == [[0, 24], [1, 36]], "60 and 72, and silence"
    assert len(Music(str(tmp_path), bars=2).load()[0]) == 1 + 8 * 2, "bars of 3/4 are in no window"


@needs_mido
def test_the_cache_is_used_until_it_or_a_file_changes(folder: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LITGAN_CACHE", str(tmp_path / "kept"))
    before = Music(str(folder)).load()[0]
    (cache_file,) = (tmp_path / "kept").iterdir()
    with monkeypatch.context() as no_reading:
        no_reading.setattr("litgan.music.data.read_midi", None)
        assert torch.equal(Music(str(folder)).load()[0], before)
    cache_file.write_bytes(cache_file.read_bytes()[:100])
    with pytest.warns(UserWarning, match="is unreadable .*: the music is read again"):
        assert torch.equal(Music(str(folder)).load()[0], before)
    write_midi(folder / "a" / "00.mid", [notes(*[50] * 9)])
    assert not torch.equal(Music(str(folder)).load()[0], before)
    assert Music(str(folder), bars=1).load()[0].shape[2] == 16


def test_a_cache_that_cannot_be_written_causes_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="not cached .*: set LITGAN_CACHE to a writable folder"):
        save_packed(tmp_path / "file" / "rolls.npz", np.zeros((1, 1, 2, 3), np.uint8), np.zeros(1))
    assert load_packed(tmp_path / "nothing.npz") is None


@needs_music21
def test_a_chorale_has_four_voices_ordered_by_pitch() -> None:
    path = next(path for path in list_chorales() if path.name == "bwv66.6.mxl")
    score = read_chorale(path)
    lines = [[note for note in score.notes if note[0] == track] for track in range(4)]
    assert [note[3] for note in lines[0][:5]] == [73, 71, 69, 71, 73]  # c sharp, b, a, b, c sharp
    assert [note[1] for note in lines[0][:5]] == [0, 0.5, 1, 2, 3]
    means = [sum(note[3] for note in line) / len(line) for line in lines]
    assert means == sorted(means, reverse=True)
    assert score.bars[:3] == [(0, 1), (1, 4), (5, 4)], "an upbeat, then bars"
    for line in lines:
        assert all(a[2] <= b[1] for a, b in pairwise(line)), "one note at a time"


@pytest.mark.parametrize("data", [Scales(transpose=5), Scales(tracks=1, pitches=40, transpose=40)])
def test_transposition_shifts_all_notes_equally_and_none_out_of_the_roll(data: PianoRolls) -> None:
    stored = data.load()[0][:256]
    transposed = data.augment(stored, Noise(0, 0, 0, 256))
    lows = [rolls.flatten(1, 2).amax(1).int().argmax(1) for rolls in (stored, transposed)]
    shifts = lows[1] - lows[0]
    for roll, other, shift in zip(stored, transposed, shifts.tolist(), strict=True):
        assert torch.equal(roll.roll(shift, -1), other)
    assert shifts.abs().max() <= data.transpose and len(shifts.unique()) > data.transpose
    part = data.augment(stored[100:130], Noise(0, 0, 100, 30))
    assert torch.equal(transposed[100:130], part), "on any rank"
    silent = torch.zeros_like(stored[:4])
    assert torch.equal(data.augment(silent, Noise(0, 0, 0, 4)), silent)


def test_all_transpositions_that_fit_are_equally_likely() -> None:
    data = Scales(tracks=1, pitches=24, transpose=3)
    roll = torch.zeros(3000, 1, 16, 24, dtype=torch.uint8)
    roll[:, 0, 0, 1] = roll[:, 0, 1, 10] = 1
    shifts = data.augment(roll, Noise(0, 0, 0, 3000))[:, 0, 0].argmax(1) - 1
    shares = (shifts + 3).bincount(minlength=7) / 3000
    torch.testing.assert_close(shares, torch.tensor([0, 0, 1, 1, 1, 1, 1]) / 5, atol=0.03, rtol=0)


def test_scales_contain_only_notes_of_the_scale() -> None:
    data = Scales(tonic=2)
    rolls = data.load()[0].float()
    pitches = rolls.sum((0, 1, 2)).nonzero().flatten() + data.lowest
    assert set((pitches % 12).tolist()) == {2, 4, 6, 7, 9, 11, 1}  # D major
    assert data.in_scale(rolls) == 1.0 and Scales(tonic=3).in_scale(rolls) < 0.5
    assert data.in_scale(torch.ones_like(rolls)) == pytest.approx(7 / 12) and data.in_scale(0 * rolls) == 0
    assert rolls.sum(3).max() == 1, "one note at a time"
    assert not torch.equal(data.load("test")[0], data.load("train")[0])
    assert Scales(tonic=2, seed=5).fingerprint == data.fingerprint
    lengths = {
        end - start for roll in rolls[:50] for _, start, end, _ in notes_from_roll(roll.bool()) if end < 16
    }
    assert lengths == {1, 2, 4} | lengths & {3, 5, 6, 8}, "repeated notes of one step merge"


def test_samples_are_decoded_as_they_were_encoded() -> None:
    data = Scales()
    stored = data.load()[0][:9]
    media = data.decode(data.encode(stored))
    assert isinstance(media, RollBatch) and torch.equal(media.rolls, stored)
    assert (media.steps_per_bar, media.lowest, media.quarters_per_bar) == (8, 48, 4)
    waltz = Music(tracks=2, steps_per_bar=12, quarters_per_bar=3)
    assert waltz.decode(torch.zeros(1, 2, 24, 48)).quarters_per_bar == 3


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (Music, {"tracks": 5}, "A chorale has 4 voices and data.tracks is 5"),
        (Music, {"bars": 0}, r"data\.bars is 0"),
        (Music, {"lowest": 100}, "48 pitches from 100 leave the range of MIDI"),
        (Music, {"transpose": -1}, r"data\.transpose is -1"),
        (Scales, {"lowest": 49, "pitches": 1}, "hold no note of the scale on 0"),
    ],
)
def test_invalid_options_are_rejected(kind: type, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        kind(**options)


@needs_mido
def test_unreadable_files_are_named_in_one_sentence(tmp_path: Path) -> None:
    def refused(sentence: str, kind: type[Exception] = ValueError, split: str = "train", **options) -> None:
        with pytest.raises(kind, match=sentence) as caught:
            Music(str(tmp_path / "music"), **options).load(split)
        assert "\n" not in str(caught.value) and str(caught.value).endswith(".")

    refused("There is no folder .*music", FileNotFoundError)
    (tmp_path / "music").mkdir()
    refused("music holds no MIDI file", FileNotFoundError)
    path = write_midi(tmp_path / "music" / "a.mid", [notes(60, 62)])
    for content in (b"", b"no music", path.read_bytes()[:-10]):
        path.write_bytes(content)
        refused(r"a\.mid is not a readable score \(.+\)")
    write_midi(path, [[("time_signature", 0, {"numerator": 4, "denominator": 4})], notes(60)])
    midi, four_quarters = path.read_bytes(), b"\xff\x58\x04\x04\x02\x18\x08"
    for signature, reason in (
        (b"\xff\x58\x04\x00\x02\x18\x08", "bars of no length"),  # no beats
        (b"\xff\x58\x04\x04\xff\x18\x08", "bars of no length"),  # beats of no length
    ):
        path.write_bytes(midi.replace(four_quarters, signature))
        refused(rf"a\.mid is not a readable score \(.*{reason}")
    write_midi(path, [notes(60, quarters=500_000)])
    refused(r"a\.mid is not a readable score \(it has more than 100,000 bars")
    write_midi(path, [notes(40, channel=9)])
    refused(r"a\.mid has no notes, or only drums")
    write_midi(path, [notes(*[60] * 8)])
    refused("has no window of 3 bars of 4 quarters with notes from 36 to 83", bars=3)
    refused("has no window of 2 bars .* notes from 36 to 47", pitches=12)
    refused("has no window for the split 'test'", split="test")


@needs_mido
@pytest.mark.parametrize("key", [b"\x02\x0e\x01", b"\x02\xf0\x00", b"\x02\x00\x07", b"\x04\x0f\x00\x00\x00"])
def test_an_impossible_key_does_not_matter(folder: Path, key: bytes) -> None:
    before = Music(str(folder)).load()[0]
    path, meter = folder / "a" / "00.mid", [("time_signature", 0, {"numerator": 4, "denominator": 4})]
    write_midi(path, [meter, notes(*[48] * 8)])
    raw = path.read_bytes()
    at = raw.index(b"\xff\x58")
    length = (
        int.from_bytes(raw[at - 5 : at - 1], "big") - 1 + len(key)
    )  # of the track, whose meter is replaced
    changed = raw[: at - 5] + (length - 4).to_bytes(4, "big") + b"\x00\xff\x59" + key + raw[at + 7 :]
    path.write_bytes(changed)
    assert torch.equal(Music(str(folder)).load()[0], before)


@needs_mido
def test_all_unusable_files_are_named_at_once_or_left_out(folder: Path) -> None:
    (folder / "a" / "broken.mid").write_bytes(b"no music")
    write_midi(folder / "b" / "drums.midi", [notes(40, channel=9)])
    write_midi(
        folder / "b" / "waltz.kar", [[("time_signature", 0, {"numerator": 3, "denominator": 4})], notes(60)]
    )
    with pytest.raises(
        ValueError, match=r"2 files cannot .*/broken.mid .*/drums.midi .*--data.skip_unusable"
    ):
        Music(str(folder)).load()
    for _ in range(2):  # read, then from the cache
        data = Music(str(folder), skip_unusable=True)
        expected = "left out: 2 unusable, 1 .txt, 1 without a window"
        assert data.summary == f"18 samples of 18 files (2 more are held out); {expected}"


@needs_mido
def test_a_midi_file_of_type_2_is_named(tmp_path: Path) -> None:
    path = write_midi(tmp_path / "a.mid", [notes(60), notes(62)])
    path.write_bytes(path.read_bytes().replace(b"\0\0\0\6\0\1", b"\0\0\0\6\0\2"))
    with pytest.raises(ValueError, match=r"a\.mid is not a readable score \(its type is 2"):
        Music(str(tmp_path)).load()


@needs_mido
def test_links_to_folders_are_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    linked = tmp_path_factory.mktemp("linked")
    for name in "ab":
        (linked / name).symlink_to(folder / name)
    assert Music(str(linked), tracks=1).size() == 18


@needs_mido
def test_long_files_are_read_in_linear_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each note is drawn in the windows that it is in, and in no other."""
    write_midi(tmp_path / "a.mid", [notes(*[60, 64, 67, 72] * 500), notes(40, quarters=2_000)])
    drawn = []

    def counting(notes, *others):
        drawn.append(len(notes))
        return to_piano_roll(notes, *others)

    monkeypatch.setattr("litgan.music.data.to_piano_roll", counting)
    rolls = Music(str(tmp_path), tracks=2).load()[0]
    assert len(rolls) == 499 and max(drawn) == 8 + 1
    assert rolls[:, 1, :, 4].all() and torch.equal(rolls[0], rolls[-1])
    monkeypatch.setattr("litgan.music.scores.MAX_BYTES", 100)
    with pytest.raises(ValueError, match=r"a\.mid is not a readable score \(its .* bytes are more than 100"):
        Music(str(tmp_path), bars=1).load()


@pytest.mark.parametrize(("package", "root"), [("mido", "music"), ("music21", None)])
def test_a_missing_package_is_named_with_its_extra(package, root, tmp_path, monkeypatch) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.mid").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package} is not installed: pip install litgan\[music\]"):
        Music(root and str(tmp_path / root)).load()
