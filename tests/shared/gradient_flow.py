"""Gradient norms by layer of any pair of networks, against plain autograd on frozen copies."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

import pytest
import torch

from litgan import gradient_flow
from litgan.losses import NonSaturating, Relativistic


def with_outputs(network, *inputs):
    """What a pass gives, and the output of each layer, with a graph of the weights too."""
    outputs = {}
    for name, layer in gradient_flow.layers(network).items():
        layer.register_forward_hook(lambda _m, _i, out, name=name: outputs.__setitem__(name, out))
    return network(*inputs), outputs


class GradientNorms:
    """Subclasses name pairs of networks, each as a function of the number of classes."""

    pairs: ClassVar[Mapping[str, tuple[Any, Any]]] = {}

    def pytest_generate_tests(self, metafunc):
        if "pair" in metafunc.fixturenames:
            metafunc.parametrize("pair", self.pairs.values(), ids=self.pairs)

    @pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=repr)
    def test_every_norm_is_that_of_plain_autograd(self, pair, loss):
        """One sample at a time, on frozen copies, in the networks' own way; nothing is left changed."""
        torch.manual_seed(0)
        networks = [make(3).double().train() for make in pair]
        latents, labels = torch.randn(3, networks[0].latent_dim).double(), torch.arange(3)
        real_logits = torch.randn(3, 1).double() if loss.relativistic else None
        before = deepcopy([network.state_dict() for network in networks])
        trace = gradient_flow.trace_gradients(*networks, loss, latents, labels, real_logits=real_logits)
        found = trace.gradient_norms()

        for network, state in zip(networks, before, strict=True):
            assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
            assert all(part.training and not part._forward_hooks for part in network.modules())
            assert all(weight.grad is None and weight.requires_grad for weight in network.parameters())

        total = dict.fromkeys(found, 0.0)
        for index in range(3):
            one = slice(index, index + 1)
            frozen_generator, frozen_discriminator = (deepcopy(network).eval() for network in networks)
            z = latents[one].clone().requires_grad_()
            fake, of_generator = with_outputs(frozen_generator, z, labels[one])
            logit, of_discriminator = with_outputs(frozen_discriminator, fake, labels[one])
            real = None if real_logits is None else real_logits[one]
            value = loss.generator(real=real, fake=logit).squeeze()
            points = {"samples": fake, "generator/latents": z}
            points |= {f"generator/{name}": out for name, out in of_generator.items()}
            points |= {f"discriminator/{name}": out for name, out in of_discriminator.items()}
            torch.testing.assert_close(trace.samples[index], fake[0], rtol=1e-6, atol=1e-6)
            for name in found:
                (gradient,) = torch.autograd.grad(value, points[name], retain_graph=True)
                total[name] += gradient.double().norm().item() / 3
                if name == "samples":
                    torch.testing.assert_close(trace.feedback[index], gradient[0], rtol=1e-6, atol=1e-9)
        assert {name: norm.item() for name, norm in found.items()} == pytest.approx(total, rel=1e-6, abs=0)

        sides = [row.partition("/")[0] for row in found]
        assert sides == sorted(sides, key=["discriminator", "samples", "generator"].index)
        assert list(found)[-1] == "generator/latents" and sides.count("samples") == 1
        assert sides.count("discriminator") >= 3 and sides.count("generator") >= 3
