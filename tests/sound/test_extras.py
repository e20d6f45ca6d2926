"""Toys need no extra; samples from files do."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.extras import FIT, QUICK, check_the_extra_is_named, without


@pytest.mark.spawn
def test_without_it_tones_are_trained(tmp_path: Path) -> None:
    done = without(["soundfile"], FIT, "configs/sound/tones.yaml", tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("tones/*/samples/reals.wav"))


@pytest.mark.spawn
def test_the_extra_is_named(tmp_path: Path) -> None:
    check_the_extra_is_named("configs/sound/drums_wavegan.yaml", "soundfile", "sound", tmp_path)
