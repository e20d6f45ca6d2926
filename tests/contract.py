"""What every generator and discriminator owes the rest of litgan, each property once.

A test file subclasses `Contract` as `TestContract` and lists its networks; a test runs for each of them:
with the argument `generator` for generators, `discriminator` for discriminators, `network` for both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm

from litgan import checkpoints
from litgan.penalties import R1

COUNT, CLASSES = 9, 3
RESOLUTIONS = pytest.mark.parametrize(
    "resolution", [32, 64, *(pytest.param(side, marks=pytest.mark.heavy) for side in (128, 256))]
)
# An exemption of variants: to compile takes longer than all other tests of a network together.
COMPILED = {"test_it_compiles_to_one_graph": "differs from a compiled case by layers of PyTorch alone"}
Refusal = tuple[Callable[[], Any], str]  # what must raise ValueError, and a pattern of its sentence


def images(*shape: int) -> Tensor:
    return 2 * torch.rand(*shape) - 1


@dataclass(frozen=True)
class Case:
    """One network, as small as its tests allow.

    Args:
        build: (sample_shape, condition, **options) -> network.
        shape: Of one sample.
        sizes: Further shapes, each with the options that a network of that shape needs.
        samples: Draws samples [B, *shape] for a discriminator.
        silent: Parts of the names of parameters that start at zero and hide others: tests draw them.
        frozen: How the names of parameters begin that never have a gradient.
        spectral: How many layers of the conditional network have spectral norm.
        image: Shape of the image, for samples of a shape, on which the network is conditioned; else classes.
        exempt: Tests that are not for this network, and why.
    """

    build: Callable[..., nn.Module]
    shape: tuple[int, ...]
    sizes: Mapping[tuple[int, ...], Mapping[str, Any]] = field(default_factory=dict)
    samples: Callable[..., Tensor] = images
    silent: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    spectral: int = 0
    image: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None
    exempt: Mapping[str, str] = field(default_factory=dict)

    def make(self, classes: int = 0) -> tuple[nn.Module, Tensor, Tensor | None]:
        """The network from seed 0, and a batch of its input and labels, or images on which it depends."""
        torch.manual_seed(0)
        network = self.built(classes)
        for name, weight in network.named_parameters():
            if any(part in name for part in self.silent):
                nn.init.normal_(weight, 0.0, 0.3)
        condition = images(COUNT, *self.image(self.shape)) if self.image else None
        if classes and condition is None:
            condition = torch.arange(COUNT) % classes
        return network, self.given(network, COUNT, self.shape), condition

    def built(self, classes: int, shape: tuple[int, ...] | None = None, **options: Any) -> nn.Module:
        shape = shape or self.shape
        return self.build(shape, self.image(shape) if self.image else classes, **options)

    def given(self, network: nn.Module, count: int, shape: tuple[int, ...]) -> Tensor:
        latent_dim = getattr(network, "latent_dim", None)
        return self.samples(count, *shape) if latent_dim is None else torch.randn(count, latent_dim)

    def deaf(self, network: nn.Module, fewest_dims: int = 0) -> list[str]:
        """The names of parameters that should have a gradient and have none."""
        return [
            name
            for name, weight in network.named_parameters()
            if weight.ndim >= fewest_dims and not name.startswith(self.frozen)
            if weight.grad is None or not weight.grad.any()
        ]


def refuses(build: Callable[[], Any], sentence: str) -> None:
    """`build` raises a ValueError of one line that holds the pattern `sentence`."""
    with pytest.raises(ValueError, match=sentence) as refused:
        build()
    assert "\n" not in str(refused.value)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def rms(maps: Tensor) -> float:
    return maps.square().mean().sqrt().item()


def record(layers: Iterable[nn.Module], run: Callable[[], Any]) -> list[Tensor]:
    """What the layers put out in `run`, in the order of their calls, with gradients."""
    maps: list[Tensor] = []

    def keep(layer: nn.Module, given: Any, made: Tensor) -> None:
        if made.requires_grad:
            made.retain_grad()
        maps.append(made)

    handles = [layer.register_forward_hook(keep) for layer in layers]
    run()
    for handle in handles:
        handle.remove()
    return maps


def growth(maps: list[Tensor]) -> list[tuple[float, float]]:
    """From each of the recorded maps to the next, the ratios of their rms and of their gradients' norms."""
    return [(rms(b) / rms(a), (b.grad.norm() / a.grad.norm()).item()) for a, b in pairwise(maps)]


def compiles(network: nn.Module, given: Tensor, labels: Tensor | None = None) -> None:
    """One compiled graph makes the network's outputs, and moves its buffers as it does."""
    torch.compiler.reset()
    twin, outputs = copy.deepcopy(network), []
    for form in (twin, torch.compile(network, backend="eager", fullgraph=True)):
        torch.manual_seed(1)
        outputs.append(form(given, labels))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(dict(network.named_buffers()), dict(twin.named_buffers()))


class Contract:
    """Subclasses say which networks and, in `refusals`, which options that do not fit."""

    generators: ClassVar[Mapping[str, Case]] = {}
    discriminators: ClassVar[Mapping[str, Case]] = {}
    refusals: ClassVar[list[Refusal]] = []

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        test = metafunc.function.__name__
        roles = {"generator": self.generators, "discriminator": self.discriminators}
        for argument in metafunc.fixturenames:
            cases = {
                f"{name}-{role}": case
                for role in roles
                if argument in (role, "network")
                for name, case in roles[role].items()
                if test not in case.exempt
            }
            if cases:
                metafunc.parametrize(argument, cases.values(), ids=cases)
        if "refusal" in metafunc.fixturenames:
            metafunc.parametrize("refusal", self.refusals, ids=range(len(self.refusals)))

    def test_exemptions_name_tests(self) -> None:
        for case in (*self.generators.values(), *self.discriminators.values()):
            assert all(hasattr(self, test) for test in case.exempt)

    def test_shapes_at_all_sizes(self, network: Case) -> None:
        for shape, options in {network.shape: {}, **network.sizes}.items():
            made = network.built(0, shape, **options)
            condition = images(2, *network.image(shape)) if network.image else None
            outputs = made(network.given(made, 2, shape), condition)
            expected = shape if hasattr(made, "latent_dim") else (outputs[0].numel(),)
            assert outputs.shape == (2, *expected) and outputs.isfinite().all()

    def test_samples_are_bounded(self, generator: Case) -> None:
        made, latents, labels = generator.make(CLASSES)
        assert made(2 * latents, labels).abs().max() <= 1

    def test_nothing_but_a_bias_comes_behind_the_last_layer(self, generator: Case) -> None:
        made, latents, condition = generator.make(CLASSES)
        if hasattr(made, "last_layer"):
            assert made(latents, condition).flatten(2).std(dim=2).min() > 1e-3
            nn.init.zeros_(made.last_layer)
            assert made(latents, condition).flatten(2).std(dim=2).max() < 1e-6

    @pytest.mark.parametrize("classes", [0, CLASSES])
    def test_every_parameter_learns(self, network: Case, classes: int) -> None:
        made, given, labels = network.make(classes)
        outputs = made(given, labels)
        (outputs * torch.randn_like(outputs)).sum().backward()
        assert network.deaf(made) == []
        frozen = [weight for name, weight in made.named_parameters() if name.startswith(network.frozen)]
        assert all(weight.grad is None for weight in frozen)

    def test_gradient_penalties_reach_every_sample_and_weight(self, discriminator: Case) -> None:
        made, samples, labels = discriminator.make(CLASSES)
        slopes = R1().input_gradient(samples=samples.requires_grad_(), logits=made(samples, labels))
        assert slopes.norm(dim=1).gt(0).all()
        slopes.square().sum().backward()
        assert discriminator.deaf(made, 2) == []  # to biases alone a piecewise linear slope is constant

    def test_the_condition_matters_to_conditional_networks_alone(self, network: Case) -> None:
        for classes in (CLASSES, 0):
            made, given, condition = network.make(classes)
            shown = torch.arange(COUNT) % CLASSES if condition is None else condition
            first, last = (made.eval()(given, each) for each in (shown, shown.flip(0)))
            assert torch.allclose(first, last) == (condition is None)
        assert condition is not None or torch.equal(made(given), first)

    def test_samples_see_each_other_where_uses_batch_statistics_says_so(self, network: Case) -> None:
        made, given, labels = network.make(CLASSES)
        for layer in made.modules():  # only batch norm is in training: noise and power iterations stand still
            layer.training = layer.training and isinstance(layer, nn.BatchNorm2d)
        alone = torch.cat([made(given[i : i + 1], labels[i : i + 1]) for i in range(COUNT)])
        mixes = not torch.allclose(alone, made(given, labels), rtol=1e-4, atol=1e-5)
        assert made.uses_batch_statistics is mixes

    def test_copies_and_state_dicts_are_equal(self, network: Case) -> None:
        made, given, labels = network.make(CLASSES)
        made(given, labels).sum().backward()  # moves running statistics and power iterations
        twin, expected = network.built(CLASSES).eval(), made.eval()(given, labels)
        assert not torch.allclose(twin(given, labels), expected)
        twin.load_state_dict(made.state_dict())
        for same in (twin, copy.deepcopy(made)):
            assert torch.equal(same(given, labels), expected)

    def test_channels_last_changes_nothing(self, network: Case) -> None:
        made, given, labels = network.make(CLASSES)
        plain = made.eval()(given, labels)
        if given.ndim == 4:
            given = given.contiguous(memory_format=torch.channels_last)
        outputs = made.to(memory_format=torch.channels_last)(given, labels)
        torch.testing.assert_close(outputs, plain, rtol=1e-4, atol=1e-5)

    def test_bfloat16_autocast_changes_little(self, network: Case) -> None:
        made, given, labels = network.make(CLASSES)
        exact = made.eval()(given, labels)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = made(given, labels).float()
        assert (outputs - exact).abs().mean() < 0.03 * exact.abs().mean()
        (outputs * torch.randn_like(exact)).sum().backward()
        assert network.deaf(made) == []

    def test_autocast_leaves_logits_in_float32(self, discriminator: Case) -> None:
        made, given, labels = discriminator.make(CLASSES)
        with torch.autocast("cpu", torch.bfloat16):
            assert made(given, labels).dtype == torch.float32

    @pytest.mark.filterwarnings("error")
    def test_it_can_be_sketched(self, network: Case) -> None:
        """What is built for real after a sketch without memory is what is built without one."""
        devices = []

        def build() -> nn.Module:
            torch.manual_seed(0)
            made = network.built(CLASSES)
            devices.append({value.device.type for value in made.state_dict().values()})
            return made

        weights = build().state_dict()
        built = checkpoints.build_fitting({"state_dict": weights}, build).state_dict()
        assert devices == [{"cpu"}, {"meta"}, {"cpu"}]
        assert all(torch.equal(built[name], weights[name]) for name in weights)

    @pytest.mark.heavy
    def test_it_compiles_to_one_graph(self, network: Case) -> None:
        made, given, labels = network.make(CLASSES)
        compiles(made, given, labels)
        compiles(made.eval(), given, labels)

    def test_spectral_norm_bounds_its_layers(self, network: Case) -> None:
        made, given, labels = network.make(CLASSES)
        normalized = [
            layer
            for layer in made.modules()
            if isinstance(getattr(getattr(layer, "parametrizations", {}), "weight", [None])[0], _SpectralNorm)
        ]
        assert len(normalized) == network.spectral
        for _ in range(50 if normalized else 0):  # the power iteration moves with each pass
            made(given[:2], labels[:2])
        for layer in normalized:
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)

    def test_input_that_does_not_fit_is_named(self, network: Case) -> None:
        made, given, condition = network.make()
        if given.shape[1]:  # no latents: nothing to fit
            refuses(lambda: made(given[:, :-1], condition), f"{type(made).__name__} was built for inputs")

    def test_a_condition_that_does_not_fit_is_named(self, network: Case) -> None:
        made, given, condition = network.make(CLASSES)
        name, wrong = type(made).__name__, f"{type(made).__name__} got labels"
        if network.image:
            for unfit in (None, condition[1:], condition[:, :-1], condition[0]):
                refuses(partial(made, given, unfit), f"{name} is conditioned on .* for {COUNT} samples")
            return
        refuses(lambda: made(given), f"{name} is conditioned on {CLASSES} classes: pass labels")
        refuses(lambda: made(given, condition.float()), f"{wrong} .*float32.*int64")
        refuses(lambda: made(given, condition[1:]), f"{wrong} .* for {COUNT} samples")

    def test_what_does_not_fit_is_named_in_one_sentence(self, refusal: Refusal) -> None:
        refuses(*refusal)
