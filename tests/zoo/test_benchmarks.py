"""The benchmark of one-stage updates runs in its quick form."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.benchmarks import quick


@pytest.mark.spawn
def test_one_stage(tmp_path: Path) -> None:
    found = quick("zoo/one_stage", tmp_path / "out.json", "--only", "dcgan-64")
    blocks = found["seconds"]["dcgan-64"]
    assert blocks.keys() == {"litgan", "raw"}
    assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in blocks.values())
