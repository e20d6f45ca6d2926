"""A base install, without packages that only extras bring, imports all of litgan and plays with images."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared.extras import FIT, IMPORTS, QUICK, without

OPTIONAL = ["soundfile", "music21", "mido", "onnx", "onnxscript"]


@pytest.mark.spawn
def test_images_are_trained(tmp_path: Path) -> None:
    done = without(OPTIONAL, IMPORTS + FIT, "configs/digits.yaml", tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(tmp_path.glob("digits/*/samples/reals.png"))
