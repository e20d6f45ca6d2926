"""The models that a GAN has to beat have the statistics that they claim, and lack what they cannot have."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from litgan.music import PianoRolls
from litgan.sound import Tones
from litgan.text import Grammar


@pytest.fixture
def opponents(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("opponents")


def following(lines: list[str], order: int) -> dict[str, Counter[str]]:
    """How often each character comes after each `order` others."""
    found: dict[str, Counter[str]] = {}
    for line in lines:
        for place in range(order, len(line)):
            found.setdefault(line[place - order : place], Counter())[line[place]] += 1
    return found


@pytest.mark.parametrize("order", [1, 3])
def test_a_markov_chain_follows_the_last_characters_as_the_text_does(opponents: Any, order: int) -> None:
    data = Grammar(samples=2_000)
    known = following(data.decode(data.encode(data.load()[0])).lines, order)
    lines = data.decode(opponents.markov_chain(data, 2_000, 0, order)).lines
    made = following(lines, order)
    often = [state for state, counts in made.items() if counts.total() > 500]
    assert len(often) > 10
    for state in often:
        for character in known[state] | made[state]:
            share = known[state][character] / known[state].total()
            spread = (share * (1 - share) / made[state].total()) ** 0.5
            assert abs(made[state][character] / made[state].total() - share) <= 5 * spread + 1e-9, state
    assert Grammar.valid(lines) < 0.1, "but sentences it does not know"


def test_a_markov_chain_can_be_drawn_again(opponents: Any) -> None:
    data = Grammar(samples=100)
    chain = opponents.markov_chain
    assert torch.equal(chain(data, 9, 0), chain(data, 9, 0)) and chain(data, 9, 0).shape == (9, 18, 24)
    assert not torch.equal(chain(data, 9, 0), chain(data, 9, 1))


def test_filtered_noise_has_the_spectrum_and_the_envelope_of_the_data(opponents: Any) -> None:
    data = Tones(samples=200, frequencies=(300.0, 1_200.0), decay=(0.6, 0.6))
    waves = data.encode(data.load()[0])[:, 0]
    noise = opponents.filtered_noise(data, 1_000, 0)
    assert noise.shape == (1_000, *data.sample_shape)
    torch.testing.assert_close(noise.abs().amax(2), torch.ones(1_000, 1))
    noise = noise[:, 0]

    def bands(waves: torch.Tensor) -> torch.Tensor:
        """Shares of power in 32 bands of 62.5 Hz."""
        power = torch.fft.rfft(waves).abs().square().mean(0)[:512].view(32, 16).sum(1)
        return power / power.sum()

    def levels(waves: torch.Tensor) -> torch.Tensor:
        """Shares of a sound's power in eighths of its time, in dB."""
        power = waves.view(-1, 8, 128).square().sum(2)
        return 10 * (power / power.sum(1, keepdim=True)).mean(0).log10()

    torch.testing.assert_close(bands(noise), bands(waves), atol=0.03, rtol=0)
    assert levels(waves)[0] - levels(waves)[-1] > 20
    torch.testing.assert_close(levels(noise), levels(waves), atol=1.5, rtol=0)


class Duet(PianoRolls):
    """One track holds a note for three quarters of a bar and rests, the other repeats a chord and a note."""

    def __init__(self) -> None:
        super().__init__(2, 1, 16, 60, 6)

    def read(self, split: str) -> tuple[torch.Tensor, None]:
        roll = torch.zeros(2, 16, 6, dtype=torch.uint8)
        roll[0, :12, 2] = 1
        roll[1, ::2, [0, 4]] = roll[1, 1::2, 5] = 1
        return roll.expand(50, -1, -1, -1).clone(), None


def test_independent_steps_have_each_tracks_own_histogram(opponents: Any) -> None:
    made = opponents.independent_steps(Duet(), 1_000, 0)
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
