"""The model that a GAN has to beat has the statistics that it claims, and lacks what it cannot have."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from music.opponent import independent_steps, to_rolls, to_symbols

from litgan.music import PianoRolls


class Duet(PianoRolls):
    """One track holds a note for three quarters of a bar and rests, the other repeats a chord and a note."""

    def __init__(self) -> None:
        super().__init__(2, 1, 16, 60, 6)

    def read(self, split: str) -> tuple[torch.Tensor, None]:
        roll = torch.zeros(2, 16, 6, dtype=torch.uint8)
        roll[0, :12, 2] = 1
        roll[1, ::2, [0, 4]] = roll[1, 1::2, 5] = 1
        return roll.expand(50, -1, -1, -1).clone(), None


def test_independent_steps_have_each_tracks_own_histogram() -> None:
    made = independent_steps(Duet(), 1_000, 0)
    assert made.shape == (1_000, 2, 16, 6)
    shares = [Counter(map(tuple, track.flatten(0, 1).int().tolist())) for track in made.unbind(1)]
    note, rest, chord, other = (0, 0, 1, 0, 0, 0), (0,) * 6, (1, 0, 0, 0, 1, 0), (0, 0, 0, 0, 0, 1)
    assert shares[0].keys() == {note, rest} and shares[1].keys() == {chord, other}
    assert shares[0][note] / 16_000 == pytest.approx(3 / 4, abs=0.02)
    assert shares[1][chord] / 16_000 == pytest.approx(1 / 2, abs=0.02)
    same = (made[:, :, 1:] == made[:, :, :-1]).all(-1).float().mean((0, 2))
    assert same.tolist() == pytest.approx([10 / 16, 1 / 2], abs=0.02), "one step independent of the other"
    together = (made[:, 0].any(-1) & made[:, 1, :, 5].bool()).float().mean()
    assert together == pytest.approx(3 / 8, abs=0.02), "and one track of the other"


def test_rolls_become_symbols_step_by_step_and_voice_by_voice() -> None:
    rolls = torch.zeros(1, 2, 3, 5, dtype=torch.uint8)
    rolls[0, 0, 0, 4] = rolls[0, 1, 0, 1] = rolls[0, 0, 2, 2] = 1
    symbols = to_symbols(rolls)
    assert symbols.tolist() == [[5, 2, 0, 0, 3, 0]]
    assert torch.equal(to_rolls(symbols, (2, 3, 5)), rolls)
