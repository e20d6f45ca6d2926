"""Pictures and MIDI files of piano rolls."""

from __future__ import annotations

import io
import sys
import wave
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import pytest
import torch

from litgan.music import RollBatch
from litgan.music.midi import notes_from_roll, sounding_and_onsets, to_midi_file
from litgan.music.render import BAR_LINE, CELL_SIZE, TRACK_COLORS
from litgan.music.synthesis import PEAK, SAMPLE_RATE, synthesize
from litgan.render import GAP

try:
    import mido
except ImportError:
    mido = None
needs_mido = pytest.mark.skipif(mido is None, reason="mido is not installed: pip install litgan[music]")
WIDTH, HEIGHT = CELL_SIZE


def rolls(count: int = 3, tracks: int = 2) -> RollBatch:
    """Sample k: track t holds row 5 + t for the first half, then repeats row 7 + k in quarters."""
    cells = torch.zeros(count, tracks, 16, 24, dtype=torch.uint8)
    for sample in range(count):
        for track in range(tracks):
            cells[sample, track, :8, 5 + track] = 1
            cells[sample, track, 8:11, 7 + sample] = cells[sample, track, 12:, 7 + sample] = 1
    return RollBatch(cells, steps_per_bar=16, lowest=48)


def test_a_picture_shows_each_note_in_the_color_of_its_track() -> None:
    media = rolls()
    picture = media.render(columns=2)
    assert picture.shape == (2 * 24 * HEIGHT + GAP, 2 * 16 * WIDTH + GAP, 3) and picture.dtype == torch.uint8

    def at(step: int, row: int) -> list[int]:
        return picture[(23 - row) * HEIGHT + 1, step * WIDTH + 2].tolist()

    assert at(1, 5) == list(TRACK_COLORS[0]) and at(1, 6) == list(TRACK_COLORS[1])
    assert at(9, 7) == list(TRACK_COLORS[0]), "the first track lies on top"
    assert at(11, 7) not in map(list, TRACK_COLORS), "the gap between repeated notes is visible"
    assert picture[0, 0].tolist() == list(BAR_LINE)
    onset = picture[(23 - 5) * HEIGHT + 1, 0].tolist()
    assert all(map(int.__lt__, onset, TRACK_COLORS[0])), "a note begins darker"
    assert (picture[24 * HEIGHT + GAP :, 16 * WIDTH + GAP :] == 255).all(), "the empty fourth tile is white"


def test_feedback_is_drawn_below_its_samples() -> None:
    media = rolls()
    feedback = torch.zeros(3, 2, 16, 24)
    feedback[:, 0, 4, 20], feedback[:, 1, 9, 3] = 1.0, -1.0
    picture = media.render_with_grad(feedback, columns=3)
    assert picture.shape[0] == 2 * 24 * HEIGHT + GAP
    assert torch.equal(picture[: 24 * HEIGHT], media.render(columns=3))
    below = picture[24 * HEIGHT + GAP :]
    assert below[(23 - 20) * HEIGHT, 4 * WIDTH].tolist() == [255, 0, 0]
    assert below[(23 - 3) * HEIGHT, 9 * WIDTH].tolist() == [0, 0, 255]


def test_a_gap_of_one_step_separates_two_notes_and_a_longer_one_is_a_rest() -> None:
    roll = torch.zeros(1, 8, 2, dtype=torch.bool)
    roll[0, [0, 1, 3, 6], 0] = True
    sounding, onset = sounding_and_onsets(roll)
    assert sounding[0, :, 0].tolist() == [True, True, True, True, False, False, True, False]
    assert onset[0, :, 0].nonzero().flatten().tolist() == [0, 3, 6]
    assert notes_from_roll(roll) == [(0, 0, 3, 0), (0, 3, 4, 0), (0, 6, 7, 0)]
    edges = torch.zeros(1, 3, 1, dtype=torch.bool)
    edges[0, [0, 2], 0] = True
    assert sounding_and_onsets(edges)[0].all(), "but nothing wraps around"
    assert not sounding_and_onsets(edges[:, 1:])[0][0, 0].any()


@needs_mido
def test_the_midi_file_holds_all_samples_with_a_bar_of_silence_between(tmp_path: Path) -> None:
    png, path, sound = rolls(count=3).save(tmp_path / "new" / "some.samples")
    assert (png.name, path.name, sound.name) == tuple(
        f"some.samples.{kind}" for kind in ("png", "mid", "wav")
    )
    assert len(list(path.parent.iterdir())) == 3, "no unfinished file stays"
    with wave.open(str(sound)) as audio:
        assert audio.getnframes() == 3 * 2 * 4 * 60 * SAMPLE_RATE // 90, "and a bar of silence after each"
    file = mido.MidiFile(path)
    assert file.length == pytest.approx((3 + 2) * 4 * 60 / 90, abs=1e-3), "at 90 quarters a minute"
    for number, track in enumerate(file.tracks[1:]):
        ticks = accumulate(message.time for message in track)
        onsets = [(t / 120, m.note - 48) for t, m in zip(ticks, track, strict=True) if m.type == "note_on"]
        assert onsets == [
            (32 * sample + step, row)
            for sample in range(3)
            for step, row in ((0, 5 + number), (8, 7 + sample), (12, 7 + sample))
        ]
    silence = RollBatch(torch.zeros(2, 2, 16, 24, dtype=torch.uint8), steps_per_bar=16, lowest=48)
    assert mido.MidiFile(silence.save(tmp_path / "silence")[1]).length == 0


@needs_mido
def test_the_file_holds_the_messages_of_an_independent_writer(tmp_path: Path) -> None:
    """`expected` comes from a writer without mido, which repeats the status byte in each message."""
    expected = bytes.fromhex(
        "4d546864 00000006 0001 0004 01e0"  # format 1, four tracks, 480 ticks per quarter note
        "4d54726b 00000013 00ff510309703d 00ff580403021808 00ff2f00"  # 618,557 us per quarter note, 3/4
        "4d54726b 00000028 00903c50 8134904250 8134803c00 00903c50 820e804200 5a803c00 00903e50 8550803e00"
        "00ff2f00 4d54726b 0000000d 00913050 8b20813000 00ff2f00"  # each track has its own channel
        "4d54726b 0000000f 820e922b50 829712822b00 00ff2f00"  # a long note
    )
    tune = [(0, 0, 4, 24), (0, 4, 8, 24), (0, 8, 16, 26), (0, 2, 7, 30), (1, 0, 16, 12), (2, 3, 400, 7)]
    file = to_midi_file(
        tune[::-1], tracks=3, lowest=36, steps_per_quarter=16 / 3, quarters_per_bar=3, tempo=97
    )
    file.save(tmp_path / "tune.mid")
    expected, found = mido.MidiFile(file=io.BytesIO(expected)), mido.MidiFile(tmp_path / "tune.mid")
    assert (found.type, found.ticks_per_beat) == (expected.type, expected.ticks_per_beat)
    assert found.tracks == expected.tracks and sum(map(len, found.tracks)) == 18


def test_notes_sound_at_their_pitch_and_in_their_time() -> None:
    sound = synthesize([(0, 2, 4, 9), (1, 6, 8, 21)], steps=8, lowest=60, seconds_per_step=0.25)
    assert sound.dtype == torch.int16 and len(sound) == 2 * SAMPLE_RATE
    assert sound.abs().max() == round(PEAK * 32767)
    silent, low, silent_too, high = sound.double().split(SAMPLE_RATE // 2)
    assert not silent.any() and not silent_too.any()
    for part, hertz in ((low, 440), (high, 880)):
        assert torch.fft.rfft(part).abs().argmax() == hertz / 2, "of half a second"
    media = rolls(count=9)
    assert len(media.to_wave()) == round(8 * 2 * 4 * 60 * SAMPLE_RATE / 90), "of the first eight samples"


@pytest.mark.skipif(find_spec("soundfile") is None, reason="soundfile is not installed: litgan[sound]")
def test_wandb_gets_what_is_heard() -> None:
    import soundfile

    media = rolls()
    played, rate = soundfile.read(media.wandb_media()["audio"]._path, dtype="int16")
    assert rate == SAMPLE_RATE and (played == media.to_wave().numpy()).all()


def test_a_missing_mido_is_named_with_its_extra_and_nothing_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mido", None)
    with pytest.raises(ImportError, match=r"mido is not installed: pip install litgan\[music\]"):
        rolls().save(tmp_path / "samples")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [torch.zeros(2, 2, 16, 24), torch.zeros(2, 16, 24, dtype=torch.uint8)])
def test_invalid_rolls_are_rejected(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"Piano rolls are uint8 of shape .*: decode the samples first"):
        RollBatch(wrong, steps_per_bar=16, lowest=48)
