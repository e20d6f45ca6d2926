"""The way back of the feedback through any pair of networks, against plain autograd on frozen copies."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from litgan import gradient_flow
from litgan.losses import NonSaturating, Relativistic


def built(pair: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    generator, discriminator = (make(3) for make in pair)
    return generator.double().train(), discriminator.double().train()


def by_hand(network: nn.Module, names: list[str], run: Any) -> tuple[Any, dict[str, Tensor]]:
    """What a pass gives, and the outputs of these blocks, with a graph of the weights too."""
    kept: dict[str, Tensor] = {}
    modules = dict(network.named_modules())
    for name in names:
        modules[name].register_forward_hook(lambda _m, _i, out, name=name: kept.__setitem__(name, out))
    return run(), kept


class GradientNorms:
    """Subclasses say for which pairs of networks, each as a function of the number of classes."""

    pairs: ClassVar[Mapping[str, tuple[Any, Any]]] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "pair" in metafunc.fixturenames:
            metafunc.parametrize("pair", self.pairs.values(), ids=self.pairs)

    @pytest.mark.parametrize("loss", [NonSaturating(), Relativistic()], ids=repr)
    def test_every_norm_is_that_of_plain_autograd(self, pair: Any, loss: Any) -> None:
        """One sample at a time, on frozen copies, in the networks' own way."""
        generator, discriminator = networks = built(pair)
        latents, labels = torch.randn(3, generator.latent_dim).double(), torch.arange(3)
        real_logits = torch.randn(3, 1).double() if loss.relativistic else None
        before = deepcopy([generator.state_dict(), discriminator.state_dict()])
        seen = gradient_flow.trace_gradients(
            generator, discriminator, loss, latents, labels, real_logits=real_logits
        )
        found = seen.gradient_norms()

        assert all(part.training for network in networks for part in network.modules())
        assert all(weight.grad is None and weight.requires_grad for weight in generator.parameters())
        for network, state in zip(networks, before, strict=True):
            assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
            assert not any(part._forward_hooks for part in network.modules())

        total = dict.fromkeys(found, 0.0)
        for index in range(3):
            made, judge = deepcopy(generator).eval(), deepcopy(discriminator).eval()
            z = latents[index : index + 1].clone().requires_grad_()
            label = labels[index : index + 1]
            fake, of_made = by_hand(made, list(gradient_flow.layers(made)), lambda: made(z, label))  # noqa: B023
            logit, of_judge = by_hand(judge, list(gradient_flow.layers(judge)), lambda: judge(fake, label))  # noqa: B023
            real = None if real_logits is None else real_logits[index : index + 1]
            objective = loss.generator(real=real, fake=logit).squeeze()
            points = {"samples": fake, "generator/latents": z}
            points |= {f"generator/{name}": out for name, out in of_made.items()}
            points |= {f"discriminator/{name}": out for name, out in of_judge.items()}
            torch.testing.assert_close(seen.samples[index], fake[0], rtol=1e-6, atol=1e-6)
            for name in found:
                (gradient,) = torch.autograd.grad(objective, points[name], retain_graph=True)
                total[name] += gradient.double().norm().item() / 3
                if name == "samples":
                    torch.testing.assert_close(seen.feedback[index], gradient[0], rtol=1e-6, atol=1e-9)
        assert {name: norm.item() for name, norm in found.items()} == {
            name: pytest.approx(norm, rel=1e-6, abs=0) for name, norm in total.items()
        }

    def test_rows_lead_from_the_discriminators_head_to_the_latents(self, pair: Any) -> None:
        networks = built(pair)
        latents = torch.randn(2, networks[0].latent_dim).double()
        rows = list(
            gradient_flow.trace_gradients(
                *networks, NonSaturating(), latents, torch.arange(2)
            ).gradient_norms()
        )
        sides = [row.partition("/")[0] for row in rows]
        assert sides == sorted(sides, key=["discriminator", "samples", "generator"].index)
        assert rows[-1] == "generator/latents" and sides.count("samples") == 1
        assert sides.count("discriminator") >= 3 and sides.count("generator") >= 3
