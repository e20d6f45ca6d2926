"""Breaks of rules: chords with known answers, and music21 on Bach's chorales."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch

from litgan.music.counterpoint import RULES, rule_breaks, strong_steps
from litgan.music.midi import sounding_and_onsets
from litgan.music.rolls import to_piano_roll
from litgan.music.scores import list_chorales, read_chorale

STEPS = 16


def breaks(*voices: tuple[int | None, ...], strong: bool = False) -> dict[str, float]:
    """Numbers of breaks by rule where they are not 0; voices move after each quarter, None is a rest."""
    roll = torch.zeros(1, len(voices), STEPS, 40, dtype=torch.bool)
    for voice, rows in enumerate(voices):
        for quarter, row in enumerate(rows):
            if row is not None:
                roll[0, voice, 4 * quarter : 4 * quarter + 4, row] = True
    beats = strong_steps(STEPS, 8 if strong else 16, 4)
    found = rule_breaks(sounding_and_onsets(roll)[0], beats)
    counts = {rule: round(found[rule] * STEPS / 1000, 6) for rule in RULES}
    assert found["rule_breaks"] * STEPS / 1000 == pytest.approx(sum(counts.values()))
    return {rule: count for rule, count in counts.items() if count}


@pytest.mark.parametrize(
    ("voices", "expected"),
    [
        (((19, 21), (12, 14)), {"parallel_fifths": 1}),
        (((19, 28), (12, 9)), {"parallel_fifths": 1}),  # a fifth, then a twelfth, in contrary motion
        (((19, 19, 21), (12, 12, 14)), {"parallel_fifths": 1}),  # a repeated chord is no motion
        (((19, 20), (12, 14)), {}),  # to a diminished fifth
        (((19, None, 21), (12, None, 14)), {}),  # a rest between
        (((24, 26), (12, 14)), {"parallel_octaves": 1}),
        (((12, 14), (12, 14)), {"parallel_octaves": 1}),  # in unison
        (((24, 17), (12, 17)), {"parallel_octaves": 1}),  # an octave, then a unison, in contrary motion
        (((24, 11), (12, 11)), {"leaps": 1}),  # and in the same direction
        (((24, 26), (19, 21), (12, 14)), {"parallel_octaves": 1, "parallel_fifths": 1}),
        (((16, 16, 16, 16), (12, 18, 18, 12)), {"crossings": 1, "leaps": 2}),
        (((12, 12), (16, 16), (20, 20)), {"crossings": 3}),
        (((12, 24, 11), (0, 0, 0)), {"leaps": 1}),  # an octave is allowed, a ninth is not
        (((12, 22), (0, 0)), {"leaps": 1}),
        (((12, 18, 17, 8), (0, 0, 0, 0)), {"leaps": 1}),
    ],
)
def test_two_chords_have_known_answers(voices, expected) -> None:
    assert breaks(*voices) == expected


@pytest.mark.parametrize(
    ("voices", "count"),
    [
        (((16, 16, 14), (12, 12, 13)), 1),  # on the third quarter, the middle of the bar
        (((16, 14), (12, 13)), 0),  # on the second, a weak one
        (((16, 14, 14), (12, 12, 13)), 0),  # prepared
        (((16, 16, 17), (12, 12, 10)), 0),  # a fifth
        (((28, 28, 26), (12, 12, 13)), 1),  # a second and an octave
        (((16, 16, 17), (4, 4, 12)), 0),  # a fourth
        (((16, 16, 14), (9, 9, 8)), 1),  # a tritone
    ],
)
def test_dissonances_count_where_they_are_unprepared_on_a_strong_beat(voices, count) -> None:
    assert breaks(*voices, strong=False).get("dissonances", 0) == count


def test_strong_steps_are_those_of_the_meter() -> None:
    assert strong_steps(32, 16, 4).nonzero().flatten().tolist() == [0, 8, 16, 24]
    assert strong_steps(24, 12, 3).nonzero().flatten().tolist() == [0, 12]


@pytest.mark.parametrize("name", ["bwv244.54.mxl", "bwv248.33-3.mxl"])
def test_parallels_and_crossings_are_those_of_music21(name) -> None:
    music21 = pytest.importorskip("music21", reason="music21 is not installed: pip install litgan[music]")
    path = next(path for path in list_chorales() if path.name == name)
    score = read_chorale(path)
    rate = 4  # steps a quarter
    steps = round(rate * max(end for _, _, end, _ in score.notes))
    notes = [(track, round(rate * start), round(rate * end), row) for track, start, end, row in score.notes]
    roll = torch.from_numpy(to_piano_roll(notes, 0, (4, steps, 128))).bool()[None]
    found = rule_breaks(sounding_and_onsets(roll)[0], strong_steps(steps, 16, 4))

    parts = {part.partName: part for part in music21.converter.parse(path, forceSource=True).parts}
    lines = []
    for part in ("Soprano", "Alto", "Tenor", "Bass"):
        line = [None] * steps
        for note in parts[part].flatten().notes:
            first = round(rate * note.offset)
            last = round(rate * (note.offset + note.quarterLength))
            line[first:last] = [music21.note.Note(note.pitch)] * (last - first)
        lines.append(line)
    expected = dict.fromkeys(("parallel_fifths", "parallel_octaves", "crossings"), 0)
    for one, other in combinations(lines, 2):
        below = False
        for pair in zip(one, other, strict=True):
            crossed = None not in pair and pair[0].pitch.midi < pair[1].pitch.midi
            expected["crossings"] += crossed and not below
            below = crossed
        for (a, c), (b, d) in pairwise(zip(one, other, strict=True)):
            if None not in (a, b, c, d) and a.pitch != b.pitch and c.pitch != d.pitch:
                quartet = music21.voiceLeading.VoiceLeadingQuartet(a, b, c, d)
                expected["parallel_fifths"] += quartet.parallelFifth()
                expected["parallel_octaves"] += quartet.parallelOctave() or quartet.parallelUnison()
    for rule, count in expected.items():
        assert found[rule] * steps / 1000 == pytest.approx(count), rule
    assert sum(expected.values()) >= 4, "there is something to find"
