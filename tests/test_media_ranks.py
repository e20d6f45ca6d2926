"""Two ranks play sound, music and text as one rank does: what they are shown, draw, learn and measure.

One rank and two (gloo) run `players.py`; the tests look at what came of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

PLAYERS = Path(__file__).with_name("players.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one rank computed, and each of two."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [sys.executable, PLAYERS, folder], env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{name}.pt", weights_only=False) for name in ("1-0", "2-0", "2-1")]


@pytest.mark.parametrize("medium", ["sound", "music", "text"])
def test_two_ranks_play_what_one_plays(medium: str, results: list[dict[str, Any]]) -> None:
    alone, *shares = (result[medium] for result in results)
    for reals, *parts in zip(alone["reals"], *(share["reals"] for share in shares), strict=True):
        assert torch.equal(reals, torch.cat(parts)), "shown with the same variations"
    for turn, latents in alone["latents"].items():
        assert torch.equal(latents, torch.cat([share["latents"][turn] for share in shares])), turn
    weights, (first, second) = alone["weights"], (share["weights"] for share in shares)
    assert len(alone["reals"]) == 8 and weights.keys() == first.keys()
    for name, value in weights.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - value).norm() <= 1e-5 * value.norm().clamp_min(1e-6), name


@pytest.mark.parametrize("medium", ["sound", "music", "text"])
def test_two_ranks_measure_what_one_measures(medium: str, results: list[dict[str, Any]]) -> None:
    alone, *shares = (result[medium]["metrics"] for result in results)
    assert shares[0] == shares[1]
    assert {f"metric/fd_{medium}", "metric/precision"} < alone.keys() and len(alone) > 8
    assert alone == pytest.approx(shares[0], rel=1e-6, abs=1e-9)
