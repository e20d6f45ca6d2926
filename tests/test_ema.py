from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from litgan.ema import EMA
from litgan.schedules import Linear


def filled(module: nn.Module, value: float) -> nn.Module:
    """A copy of the module with all parameters set to `value`."""
    module = copy.deepcopy(module)
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
    return module


def test_the_average_does_not_depend_on_the_batch_size():
    zeros, ones = filled(nn.Linear(2, 3), 0.0), filled(nn.Linear(2, 3), 1.0)
    for batch in (8, 16, 48):
        ema = EMA(zeros, halflife=96, rampup=0)
        for seen in range(batch, 193, batch):
            ema.update(ones, images_seen=seen, images=batch)
        torch.testing.assert_close(ema.average.weight, torch.full((3, 2), 0.75))


def test_closed_form_over_moving_weights():
    torch.manual_seed(0)
    source = nn.Linear(2, 3)
    ema = EMA(source, halflife=40, rampup=0)
    expected, decay = source.weight.detach().clone(), 0.5 ** (10 / 40)
    for step in range(1, 6):
        nn.init.normal_(source.weight)
        expected = decay * expected + (1 - decay) * source.weight.detach()
        ema.update(source, images_seen=10 * step, images=10)
    torch.testing.assert_close(ema.average.weight.detach(), expected)


def test_the_half_life_ramps_up_with_the_run():
    ema = EMA(nn.Linear(1, 1), halflife=1000, rampup=0.05)
    assert ema.decay(images_seen=0, images=10) == 0.0  # nothing of the random start is kept
    assert ema.decay(images_seen=200, images=10) == pytest.approx(0.5)  # half-life 0.05 * 200 = 10
    assert ema.decay(images_seen=2000, images=10) == pytest.approx(0.5**0.1)
    assert ema.decay(images_seen=10**9, images=10) == pytest.approx(0.5**0.01)
    scheduled = EMA(nn.Linear(1, 1), halflife=Linear(10, 30, images=100), rampup=0)
    assert scheduled.decay(images_seen=50, images=20) == pytest.approx(0.5)


def test_a_half_life_of_zero_follows_the_source():
    ema = EMA(filled(nn.Linear(1, 1), 0.0), halflife=0, rampup=0)
    ema.update(filled(nn.Linear(1, 1), 1.0), images_seen=8, images=8)
    assert ema.average.weight.item() == 1.0


def test_parameters_are_averaged_and_buffers_copied():
    torch.manual_seed(0)
    source = nn.Sequential(spectral_norm(nn.Linear(4, 4)), nn.BatchNorm1d(4))
    ema = EMA(source, halflife=8, rampup=0)
    before = {name: value.clone() for name, value in ema.average.named_parameters()}
    source.train()
    for _ in range(3):
        source(torch.randn(16, 4) + 2)
    for parameter in source.parameters():
        nn.init.normal_(parameter)
    ema.update(source, images_seen=8, images=8)
    moved = dict(source.named_parameters())
    for name, value in ema.average.named_parameters():
        torch.testing.assert_close(value.detach(), (before[name] + moved[name].detach()) / 2)
    buffers = dict(source.named_buffers())
    assert {"1.running_mean", "1.num_batches_tracked"} < buffers.keys() and len(buffers) == 5
    for name, value in ema.average.named_buffers():
        assert torch.equal(value, buffers[name]) and value.data_ptr() != buffers[name].data_ptr()
    assert ema.average[1].num_batches_tracked == 3


def test_it_is_never_trained_and_never_asked_for_gradients():
    source = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    ema = EMA(source, halflife=10)
    assert source.training and not ema.average.training
    parent = nn.ModuleDict({"source": source, "ema": ema}).train()
    assert not any(module.training for module in parent["ema"].modules())
    assert not any(parameter.requires_grad for parameter in ema.parameters())
    inputs = torch.randn(64, 2)
    assert torch.equal(ema.average(inputs), source[0](inputs))
