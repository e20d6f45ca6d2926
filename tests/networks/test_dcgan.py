import pytest
import torch
from torch import nn

from litgan.networks.layers import PixelNorm, init_weights


def test_pixel_norm_gives_every_position_unit_mean_square():
    maps = 9 * torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(PixelNorm()(maps).square().mean(1), torch.ones(2, 4, 4))
    assert PixelNorm()(maps.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("layer", "given"),
    [
        (nn.Linear(300, 200), torch.randn(64, 300)),
        (nn.Conv2d(32, 48, 4, 2, 1), torch.randn(8, 32, 32, 32)),
        (nn.ConvTranspose2d(32, 48, 4, 2, 1), torch.randn(8, 32, 32, 32)),
        (nn.Conv2d(32, 48, 3, padding=1), torch.randn(8, 32, 32, 32)),
    ],
)
def test_he_initialization_doubles_the_mean_square_that_relu_will_halve(layer, given):
    init_weights(layer, "he")
    assert layer(given).square().mean().item() == pytest.approx(2, rel=0.15)
    init_weights(layer, "dcgan")
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not layer.bias.any()
