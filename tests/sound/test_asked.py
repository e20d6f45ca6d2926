"""The measures of conditional drums, on tones whose classes and copies are known."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from sound import asked

from litgan.sound import Tones
from litgan.sound.tones import tone_errors


def test_copies_have_no_distance_and_others_have_one() -> None:
    data = Tones(samples=40)
    waves = data.encode(data.load()[0])
    copies = asked.nearest(waves[:9], waves)
    others = asked.nearest(waves[:20], waves[20:])
    assert copies.max() < 1e-3 and others.min() > 5e-3 and others.median() > 0.5


def test_classes_that_are_named_right_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a judge that knows each tone, of a generator whose first class has the second one's frequency."""
    data = Tones(num_classes=4, samples=40, mu_law=255)
    waves, labels = data.encode(data.load()[0]), data.load()[1]
    ear = SimpleNamespace(
        features=lambda waves: tone_errors(waves[:, 0], data.frequencies, data.sample_rate)[1],
        head=lambda which: torch.nn.functional.one_hot(which, 4),
    )
    monkeypatch.setattr(asked, "judge", lambda data: ear)
    wrong = torch.where(labels == 0, 1, labels)
    made = SimpleNamespace(
        num_classes=4,
        sample=lambda count, first: torch.stack([waves[wrong[(first + i) % 4]] for i in range(count)]),
    )
    found = asked.measure(made, data, 40)
    assert found["named right, held out"] == 1 and found["named right, generated"] == 0.75
    assert found["distance to training, median, generated"] == pytest.approx(0, abs=1e-3)


def test_the_script_finds_the_judges_of_all_media() -> None:
    said = subprocess.run([sys.executable, asked.__file__, "--help"], capture_output=True, text=True)
    assert said.returncode == 0 and "CKPT" in said.stdout, said.stderr
