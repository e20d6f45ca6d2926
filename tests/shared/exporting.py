"""Graphs of generators from images to images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from litgan.export import save_onnx


def check_any_size(generator: nn.Module, condition: tuple[int, ...], folder: Path) -> None:
    """Its graph takes the condition alone, and makes of images of other sizes what it makes of them."""
    runtime = pytest.importorskip("onnxruntime", reason="pip install litgan[export] onnxruntime")
    save_onnx(generator, condition, folder / "generator.onnx")
    session = runtime.InferenceSession(folder / "generator.onnx")
    for count, height, width in ((1, *condition[1:]), (3, 21, 30)):
        images = torch.rand(count, condition[0], height, width)
        (samples,) = session.run(None, {"condition": images.numpy()})
        with torch.no_grad():
            expected = generator(torch.zeros(count, 0), images)
        torch.testing.assert_close(torch.tensor(samples), expected, rtol=1e-4, atol=1e-5)
