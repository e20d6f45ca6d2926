"""A run that is cut on two ranks goes on: on two with the same bits, on one and back within rounding.

All of it is one launch of `travellers.py`; the tests look at what came of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from shared.ranks import distance, launch
from shared.resuming import same

TRAVELLERS = Path(__file__).with_name("travellers.py")
CASES = ("turns", "images")
TURNS = {"turns": 40, "images": 20}  # of the discriminator in the whole run

pytestmark = pytest.mark.spawn


@pytest.fixture(scope="module")
def legs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What each rank computed, by turn of the launch and leg: legs["0 turns, cut"][rank]."""
    folder = tmp_path_factory.mktemp("legs")
    launch(TRAVELLERS, folder)
    found: dict[str, list[dict[str, Any]]] = {}
    for turn, world_size in enumerate((2, 1, 2)):
        for rank in range(world_size):
            for leg, result in torch.load(folder / f"{turn}-{rank}.pt", weights_only=False).items():
                found.setdefault(f"{turn} {leg}", []).append(result)
    return found


def drawn(leg: list[dict[str, Any]], turns: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Latents and reals of the last turns, those of all ranks joined."""
    latents = [torch.cat([rank["latents"][key] for rank in leg]) for key in leg[0]["latents"]]
    reals = [torch.cat(parts) for parts in zip(*(rank["reals"] for rank in leg), strict=True)]
    of_a_turn = len(latents) // len(reals)
    return latents[-turns * of_a_turn :], reals[-turns:]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("turn", [0, 1], ids=["two ranks", "one rank"])
def test_a_run_cut_and_resumed_is_the_run_that_was_never_cut(turn, case, legs):
    uncut, cut, resumed = (legs[f"{turn} {case}, {leg}"] for leg in ("uncut", "cut", "resumed"))
    assert len(uncut) == 2 - turn
    assert cut[0]["clock"][2] == 5 and uncut[0]["clock"][2] == 20
    for straight, before, after in zip(uncut, cut, resumed, strict=True):
        for part in ("weights", "optimizers", "clock"):
            assert same(after[part], straight[part]), part
        assert same(before["latents"] | after["latents"], straight["latents"])
        assert same(before["reals"] + after["reals"], straight["reals"])
        assert not same(before["weights"], straight["weights"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("leg", "left"), [("1 2 to 1", 15), ("2 1 to 2", 15), ("2 2 to 1 to 2", 7)])
def test_a_run_goes_on_with_another_number_of_ranks(leg, left, case, legs):
    turn, journey = leg.split(" ", 1)
    uncut, travelled = legs[f"1 {case}, uncut"], legs[f"{turn} {case}, {journey}"]
    assert all(rank["clock"] == uncut[0]["clock"] for rank in travelled)
    turns = left * TURNS[case] // 20
    assert len(travelled[0]["reals"]) == turns
    assert same(drawn(travelled, turns), drawn(uncut, turns))
    for rank in travelled:
        assert distance(rank["weights"], uncut[0]["weights"]) < 1e-5
