"""The convolutions that penalties differentiate twice: torch's own are the reference."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d
from torch.utils._python_dispatch import TorchDispatchMode

from litgan.networks.convolutions import FilterFunction, GroupedConv2d

KERNEL = torch.tensor([1.0, 2.0, 1.0]).outer(torch.tensor([1.0, 2.0, 1.0]))[None, None] / 16


class Operations(TorchDispatchMode):
    """Counts what is computed."""

    def __init__(self):
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count[str(operation.overloadpacket)] += 1
        return operation(*args, **(kwargs or {}))


class Filter(nn.Module):
    def forward(self, maps):
        return FilterFunction.apply(maps, KERNEL.to(maps.device, maps.dtype), 1)


def layer(kind, groups=2, channels=4):
    """The layer, and torch's own convolution of the same maps."""
    torch.manual_seed(0)
    if kind == "filter":
        return Filter(), lambda maps: conv2d(
            maps, KERNEL.to(maps).expand(channels, -1, -1, -1), padding=1, groups=channels
        )
    own = GroupedConv2d(channels, 2 * groups, 3, groups=groups)
    nn.init.normal_(own.bias)
    return own, lambda maps: conv2d(maps, own.weight, own.bias, padding=1, groups=groups)


def penalized(convolution, maps, parameters=()):
    """The output, R1's gradient in the maps, and the gradients of both in maps and parameters."""
    maps = maps.detach().requires_grad_()
    made = convolution(maps)
    (slope,) = torch.autograd.grad(made.float().square().sum(), maps, create_graph=True)
    loss = slope.float().square().sum() + made.float().sum()
    return made, slope, *torch.autograd.grad(loss, (maps, *parameters))


KINDS = pytest.mark.parametrize("kind", ["filter", "grouped"])


def test_grouped_convolutions_have_all_derivatives():
    own, reference = layer("grouped")
    own, maps = own.double(), torch.randn(2, 4, 5, 3).double().requires_grad_()
    made = lambda maps, *_: own(maps)  # noqa: E731
    arguments = (maps, own.weight, own.bias)
    torch.testing.assert_close(own(maps), reference(maps))
    assert torch.autograd.gradcheck(made, arguments) and torch.autograd.gradgradcheck(made, arguments)
    theirs = torch.autograd.grad(reference(maps).square().sum(), own.weight, create_graph=True)[0]
    ours = torch.autograd.grad(own(maps).square().sum(), own.weight, create_graph=True)[0]
    for each in (maps, own.weight):  # of the weight's gradient, too
        again = [torch.autograd.grad(g.square().sum(), each, retain_graph=True)[0] for g in (ours, theirs)]
        torch.testing.assert_close(*again)


@KINDS
def test_penalties_cost_as_much_with_many_groups_as_with_few(kind):
    """torch's own second derivative takes a convolution for each group."""
    counts = []
    for groups in (2, 16):
        own, _ = layer(kind, groups, channels=groups)
        with Operations() as ours:
            penalized(own, torch.randn(2, groups, 4, 4), list(own.parameters()))
        counts.append(ours.count)
    assert (
        counts[0] == counts[1] and counts[0]["aten.convolution"] + counts[0]["aten.convolution_backward"] < 7
    )


def test_the_gradient_in_the_maps_computes_none_in_the_weights():
    own, _ = layer("grouped")
    maps = torch.randn(2, 4, 4, 4, requires_grad=True)
    made = own(maps)
    with Operations() as operations:
        torch.autograd.grad(made.sum(), maps, create_graph=True)
    assert operations.count["aten.convolution"] == 1 and not operations.count["aten.convolution_backward"]


@KINDS
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_values_derivatives_and_layout_are_those_of_torch(kind, memory):
    own, reference = layer(kind)
    own, maps = own.to(memory_format=memory), torch.randn(2, 4, 6, 5).to(memory_format=memory)
    ours, theirs = (penalized(each, maps, list(own.parameters())) for each in (own, reference))
    torch.testing.assert_close(ours, theirs)
    assert all(each.is_contiguous(memory_format=memory) for each in ours[:2])


@KINDS
def test_autocast_lowers_what_ran_in_it_and_no_derivative_of_what_did_not(kind):
    """The penalties of a float16 run are computed in float32, but their backward pass is within autocast."""
    own, reference = layer(kind)
    maps, autocast = torch.randn(2, 4, 6, 5), lambda on: torch.autocast("cpu", torch.bfloat16, enabled=on)
    expected = penalized(own, maps, list(own.parameters()))
    with autocast(True):
        low = penalized(own, maps, list(own.parameters()))
        made = [reference(maps), own(maps.bfloat16())]
        maps = maps.requires_grad_()
        with autocast(False):
            outside = own(maps)
        (slope,) = torch.autograd.grad(outside.square().sum(), maps, create_graph=True)
        result = outside, slope, *torch.autograd.grad(
            slope.square().sum() + outside.sum(), (maps, *own.parameters())
        )  # fmt: skip
    assert low[0].dtype == torch.bfloat16 and all(each.dtype == torch.float32 for each in low[1:])
    torch.testing.assert_close(low[0], made[0], rtol=0.02, atol=0.02)
    assert torch.equal(low[0], made[1])
    assert all(torch.equal(*each) for each in zip(expected, result, strict=True))


@KINDS
def test_compiled_layers_learn_the_same(kind):
    own, _ = layer(kind)
    compiled = torch.compile(own, backend="aot_eager", fullgraph=True)
    maps = torch.randn(2, 4, 6, 5)
    for gradients in zip(*(
        torch.autograd.grad(each(maps.requires_grad_()).square().sum(), (maps, *own.parameters()))
        for each in (own, compiled)
    ), strict=True):  # fmt: skip
        torch.testing.assert_close(*gradients)
