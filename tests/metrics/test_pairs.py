"""Metrics of a fake and the real sample of the same condition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from shared.pairs import Pairs
from torch import Tensor

from litgan.metrics import evaluate
from litgan.metrics.pairs import image_metrics

OPTIONS: dict[str, Any] = {"count": 40, "batch_size": 8, "pairs": True, "neighbours_count": 36}


def off_by(shift: float) -> Any:
    """Fakes that differ from the real sample of the same index by a constant."""
    reals = torch.cat([real for real, _ in Pairs().real_batches(40)])
    return lambda first, size: (0.5 * reals + shift)[first : first + size]


class HalfRange(Pairs):
    """So that a shift leaves the range to no pixel."""

    def encode(self, stored: Tensor) -> Tensor:
        return 0.5 * super().encode(stored)


def test_what_is_known_of_a_constant_difference() -> None:
    real = torch.rand(3, 2, 16, 12) - 0.5
    found = image_metrics(real=real, fake=real + torch.tensor([0.0, 0.1, 0.5]).view(3, 1, 1, 1))
    assert found["l1"].tolist() == pytest.approx([0, 0.1, 0.5])
    assert found["psnr"][1:].tolist() == pytest.approx([20 * math.log10(2 / 0.1), 20 * math.log10(2 / 0.5)])
    assert found["ssim"][0] == pytest.approx(1) and 1 > found["ssim"][1] > found["ssim"][2]
    assert image_metrics(real=real[:, 0, 0], fake=real[:, 0, 0]).keys() == {"l1"}


def test_sides_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 4\].*\[1, 8\]"):
        image_metrics(real=torch.zeros(2, 1, 8), fake=torch.zeros(2, 1, 4))


def test_each_fake_is_compared_with_the_real_of_its_index() -> None:
    report = evaluate(off_by(0.1), HalfRange(), "digits", **OPTIONS)
    assert report.values["metric/l1"] == pytest.approx(0.1, abs=1e-6)
    assert report.values["metric/psnr"] == pytest.approx(20 * math.log10(20), abs=1e-4)
    assert 0 < report.values["metric/paired_digits"] < report.values["metric/fd_digits"] + 10
    assert report.protocol["pairs"] == 36
    plain = evaluate(off_by(0.1), HalfRange(), "digits", **{**OPTIONS, "pairs": False})
    assert plain.values.keys() == {
        key for key in report.values if key.split("/")[1] not in ("l1", "psnr", "ssim", "paired_digits")
    }
