"""The benchmark of a late adversary runs in its quick form."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.benchmarks import ROOT, quick


@pytest.mark.spawn
def test_late_adversary(tmp_path: Path) -> None:
    recipe = ROOT / "configs" / "translation" / "digits_vq.yaml"
    short = ["--recipe", recipe, "--iterations", 12, "--count", 50]
    rows = quick("translation/late_adversary", tmp_path / "out.json", *short)["rows"]
    assert [row["setting"] for row in rows] == ["ramp", "careless"]
    assert rows[0]["before"] == rows[1]["before"] > 0  # the same until then
    assert rows[0]["after"] != rows[1]["after"]
