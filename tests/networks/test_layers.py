from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode

from litgan.networks.layers import spectral_norm


class Autocast(TorchFunctionMode):
    """Whether autocast was on in each product of a power iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[bool] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.mv:
            self.found.append(torch.is_autocast_enabled("cpu"))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "build", [lambda: nn.Linear(4, 3), lambda: nn.ConvTranspose2d(4, 3, 2), lambda: nn.Embedding(5, 3)]
)
def test_spectral_norm_is_torch_s_without_autocast(build):
    layers = []
    for norm in (spectral_norm, parametrizations.spectral_norm):
        torch.manual_seed(0)
        layers.append(build())
        norm(layers[-1])
    own, reference = layers
    with torch.autocast("cpu", torch.bfloat16), Autocast() as autocast:
        weight = own.weight
    assert torch.equal(weight, reference.weight) and list(own.state_dict()) == list(reference.state_dict())
    assert autocast.found and not any(autocast.found)
