"""The benchmark of the health runs in its quick form."""

from __future__ import annotations

import pytest
from shared.benchmarks import quick


@pytest.mark.spawn
def test_health(tmp_path):
    found = quick("diagnosis/health", tmp_path / "out.json", "--only", "digits")
    (row,) = found["rows"]
    assert row["recipe"] == "digits" and "health share %" in row
    assert {side: len(times) for side, times in found["seconds"]["digits"].items()} == {
        "plain": 2, "health": 2
    }  # fmt: skip
