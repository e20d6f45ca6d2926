"""Scores from files need an extra."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.extras import check_the_extra_is_named


@pytest.mark.spawn
def test_the_extra_is_named(tmp_path: Path) -> None:
    check_the_extra_is_named("configs/music/chorales_pianoroll.yaml", "music21", "music", tmp_path)
