"""A rank that dies, hangs or fails ends the others, with a sentence; a slow one or a pause does not.

All of it is one launch of `listeners.py`, whose ranks do what its scenarios say; whole commands are
killed in test_launching.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from litgan.heartbeat import check_seconds

LISTENERS = Path(__file__).with_name("listeners.py")


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each scenario."""
    command = [sys.executable, LISTENERS, tmp_path_factory.mktemp("listeners")]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("scenario", "lost", "sentence"),
    [
        ("rank 1 is killed", 1, "Rank 1 died: what it printed last may say why. Go on from the last"),
        ("rank 0 is killed", 0, "Rank 0 died: "),
        ("rank 1 is killed while all train", 1, "Rank 1 died: "),
        ("rank 2 of 3 is killed", 2, "Rank 2 died: "),
        ("rank 1 hangs", 1, "Rank 1 was not heard for 3 s: it hangs, or its machine or the network does."),
        ("rank 0 hangs", 0, "Rank 0 was not heard for 3 s: "),
        ("rank 1 fails", 1, "Rank 1 stopped with an error, which it printed, and the others cannot go on"),
    ],
)
def test_the_others_end_with_a_sentence_that_names_the_lost_rank(scenario, lost, sentence, scenarios):
    codes, said = scenarios[scenario]["codes"], scenarios[scenario]["said"]
    assert codes.pop(lost) == (-signal.SIGKILL if "killed" in scenario else 1)
    assert codes and all(code == 1 for code in codes)
    assert scenarios[scenario]["seconds"] < 20
    for rank, words in enumerate(said):
        assert (f"litgan: error: {sentence}" in words) == (rank != lost or "hangs" in scenario)


@pytest.mark.parametrize("scenario", ["all ranks are stopped for a while", "rank 0 takes long to end"])
def test_nobody_is_missed_who_comes_back_or_said_farewell(scenario, scenarios):
    found = scenarios[scenario]
    assert found["codes"] == [0, 0], found["said"]
    assert found["seconds"] > (3 if "takes long" in scenario else 2), "longer than ranks are waited for"
    assert not any("litgan: error" in words for words in found["said"])


@pytest.mark.parametrize(("every", "patience"), [(0, 30), (-1, 30), (5, 10), (5, 1)])
def test_a_patience_of_two_beats_is_none(every, patience):
    with pytest.raises(ValueError, match=rf"every {every} s is no sign of life within {patience} s: give a"):
        check_seconds(every, patience)
