"""The model that a GAN has to beat has the statistics that it claims, and lacks what it cannot have."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import recipes
import torch
from shared.benchmarks import ROOT
from text.opponent import markov_chain, order_of_chain

from litgan.text import Grammar, PieceText


def following(lines: list[str], order: int) -> dict[str, Counter[str]]:
    """How often each character comes after each `order` others."""
    found: dict[str, Counter[str]] = {}
    for line in lines:
        for place in range(order, len(line)):
            found.setdefault(line[place - order : place], Counter())[line[place]] += 1
    return found


@pytest.mark.parametrize("order", [1, 3])
def test_a_markov_chain_follows_the_last_characters_as_the_text_does(order: int) -> None:
    data = Grammar(samples=2_000)
    known = following(data.decode(data.encode(data.load()[0])).lines, order)
    lines = data.decode(markov_chain(data, 2_000, 0, order)).lines
    made = following(lines, order)
    often = [state for state, counts in made.items() if counts.total() > 500]
    assert len(often) > 10
    for state in often:
        for character in known[state] | made[state]:
            share = known[state][character] / known[state].total()
            spread = (share * (1 - share) / made[state].total()) ** 0.5
            assert abs(made[state][character] / made[state].total() - share) <= 5 * spread + 1e-9, state
    assert Grammar.valid(lines) < 0.1, "but sentences it does not know"


def test_a_markov_chain_can_be_drawn_again() -> None:
    data = Grammar(samples=100)
    chain = markov_chain
    assert torch.equal(chain(data, 9, 0), chain(data, 9, 0)) and chain(data, 9, 0).shape == (9, 18, 24)
    assert not torch.equal(chain(data, 9, 0), chain(data, 9, 1))


@pytest.mark.heavy
def test_fakes_floor_and_opponent_of_a_recipe_share_split_and_count() -> None:
    """Also where the extractor is a class, as in every recipe of this medium."""
    recipe, two = ROOT / "configs/text/grammar.yaml", ["--trainer.max_steps=2"]
    rows = recipes.one(recipe, [1e-6, math.inf], 64, None, two, seconds=1)
    names = [row["when"].split(":")[0] for row in rows]
    assert names == ["start", "1e-06 min", "end", "floor", *5 * ["opponent"]]
    assert [row.get("images") for row in rows[:3]] == [0, 64, 128]
    assert {(row["split"], row["count"]) for row in rows} == {("test", 64)}
    assert rows[3]["fd_text"] < rows[2]["fd_text"]


def test_a_chain_of_many_pieces_remembers_one(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(["the sea and the land", "the land was dry"] * 200))
    data = PieceText(str(path), length=12, pieces=4, vocabulary_size=300, alphabet_size=40)
    assert order_of_chain(data) == 1 and order_of_chain(Grammar()) == 3
    lines = data.decode(markov_chain(data, 50, 0, 1)).lines
    assert all(word in data.vocabulary for line in lines for word in line[: line.rfind(" ")].split())
