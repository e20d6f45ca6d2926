"""Bad input that is about the zoo ends with one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "configs" / "digits.yaml"


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        (
            "--model=litgan.zoo.OneStageGa",
            ["OneStageGa, which does not exist", "mean OneStageGAN?"],
        ),
        ("--model=litgan.losses.Hinge", ["litgan.losses.Hinge, which is no GAN", "litgan.zoo.OneStageGAN"]),
    ],
)
def test_command_line(option: str, parts: list[str], complaint: Callable[..., str]) -> None:
    sentence = complaint("fit", "--config", CONFIG, option)
    assert all(part in sentence for part in parts), sentence
