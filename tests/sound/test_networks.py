"""WaveGAN and HiFi-GAN's discriminator."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from litgan.networks import HiFiGANDiscriminator, WaveGANDiscriminator, WaveGANGenerator
from litgan.networks.waveform import PhaseShuffle

SHAPE = (1, 256)


def generator(classes: int = 0, **options) -> WaveGANGenerator:
    return WaveGANGenerator(SHAPE, classes, **({"latent_dim": 6, "widths": (8, 6, 4)} | options))


def wavegan(classes: int = 0, **options) -> WaveGANDiscriminator:
    return WaveGANDiscriminator(SHAPE, classes, **({"widths": (4, 6, 8)} | options))


def hifigan(classes: int = 0, **options) -> HiFiGANDiscriminator:
    return HiFiGANDiscriminator(SHAPE, classes, **({"widths": (4, 6), "periods": (2, 3)} | options))


def labels(count: int, classes: int) -> torch.Tensor | None:
    return torch.arange(count) % classes if classes else None


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("critic", [wavegan, hifigan])
def test_shapes_and_every_parameter_learns(critic, classes: int) -> None:
    maker, judge = generator(classes), critic(classes)
    fake = maker(torch.randn(5, 6), labels(5, classes))
    assert fake.shape == (5, *SHAPE) and fake.abs().max() <= 1
    logits = judge(fake, labels(5, classes))
    assert logits.ndim == 2 and len(logits) == 5
    logits.square().sum().backward()
    for network in (maker, judge):
        assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
        assert network.mixes_samples is False


@pytest.mark.parametrize(("length", "widths"), [(4_096, (2,) * 4), (16_384, (2,) * 5), (65_536, (2,) * 6)])
def test_the_lengths_of_the_paper(length: int, widths: tuple[int, ...]) -> None:
    maker = WaveGANGenerator((1, length), widths=widths, latent_dim=3)
    assert maker.base_shape == (2, 16)
    fake = maker(torch.randn(2, 3))
    assert fake.shape == (2, 1, length)
    assert WaveGANDiscriminator((1, length), widths=widths)(fake).shape == (2, 1)


def test_the_parameters_of_the_paper() -> None:
    """Donahue et al. 2019, tables 3 and 4, with d = 64 and c = 1."""
    stages = [(1024, 512), (512, 256), (256, 128), (128, 64), (64, 1)]
    convolutions = sum(25 * a * b + b for a, b in stages)
    with torch.device("meta"):
        maker = WaveGANGenerator((1, 16_384), widths=(1024, 512, 256, 128, 64))
        judge = WaveGANDiscriminator((1, 16_384), widths=(64, 128, 256, 512, 1024))
    count = lambda network: sum(p.numel() for p in network.parameters())  # noqa: E731
    assert count(maker) == 101 * 16_384 + convolutions
    assert count(judge) == sum(25 * a * b + a for a, b in stages) + 16_385


def test_the_logits_of_hifigan_are_those_of_each_period_and_scale() -> None:
    judge = HiFiGANDiscriminator(SHAPE, widths=(2,), periods=(2, 3, 5), scales=2)
    rows = [math.ceil(math.ceil(256 / p) / 3) * p for p in (2, 3, 5)]  # a stride of 3 in each of p columns
    assert judge(torch.randn(4, *SHAPE)).shape == (4, sum(rows) + 256 // 4 + math.ceil(129 / 4))
    assert HiFiGANDiscriminator(SHAPE, periods=(), scales=1)(torch.randn(1, *SHAPE)).shape == (1, 1)


def test_a_period_sees_every_so_manieth_sample() -> None:
    """A change of one sample moves only the logits of its own column."""
    judge = HiFiGANDiscriminator(SHAPE, widths=(4,), periods=(3,), scales=0).eval()
    samples = torch.randn(1, *SHAPE)
    changed = samples.clone()
    changed[..., 100] += 1
    moved = (judge(samples) != judge(changed)).view(-1, 3).any(0)
    assert moved.tolist() == [False, True, False], "100 = 1 modulo 3"


def test_weights_are_normalised() -> None:
    judge = hifigan()
    for _ in range(50):
        judge(torch.randn(2, *SHAPE))
    first = judge.of_scales[0].trunk[2].weight.flatten(1)
    assert torch.linalg.matrix_norm(first, 2).item() == pytest.approx(1, abs=0.02)
    for part in (judge.of_scales[1], judge.of_periods[0]):
        gain, weight = part.trunk[2].parametrizations.weight.original0, part.trunk[2].weight
        torch.testing.assert_close(weight.flatten(1).norm(dim=1), gain.flatten().abs())
    twin = copy.deepcopy(judge).eval()
    samples = torch.randn(3, *SHAPE)
    torch.testing.assert_close(twin(samples), judge.eval()(samples))


@pytest.mark.parametrize("critic", [wavegan, hifigan])
def test_samples_do_not_see_each_other(critic) -> None:
    judge, samples = critic().eval(), torch.randn(4, *SHAPE)
    alone = torch.cat([judge(one[None]) for one in samples])
    torch.testing.assert_close(judge(samples), alone)


@pytest.mark.parametrize("critic", [wavegan, hifigan])
def test_the_gradient_penalty_reaches_the_weights(critic) -> None:
    judge = critic()
    real = torch.randn(4, *SHAPE, requires_grad=True)
    (slope,) = torch.autograd.grad(judge(real).sum(), real, create_graph=True)
    slope.square().sum().backward()
    weights = [
        p for name, p in judge.named_parameters() if name.endswith(("weight", "original0", "original1"))
    ]
    assert weights and all(p.grad is not None and p.grad.any() for p in weights)


def test_shuffled_phases_are_shifts_filled_by_reflection() -> None:
    maps = torch.arange(10.0).expand(2_000, 3, 10)
    torch.manual_seed(0)
    shuffled = PhaseShuffle(2)(maps)
    expected = {
        -2: [2, 1, 0, 1, 2, 3, 4, 5, 6, 7], -1: [1, 0, 1, 2, 3, 4, 5, 6, 7, 8], 0: list(range(10)),
        1: [1, 2, 3, 4, 5, 6, 7, 8, 9, 8], 2: [2, 3, 4, 5, 6, 7, 8, 9, 8, 7],
    }  # fmt: skip
    assert torch.equal(shuffled[:, 0], shuffled[:, 2]), "all channels of a sample alike"
    counts = [(shuffled[:, 0] == torch.tensor(row)).all(1).sum().item() for row in expected.values()]
    assert sum(counts) == 2_000 and min(counts) > 300


def test_phases_are_shuffled_in_training_alone_and_by_torch_s_seed() -> None:
    judge, samples = wavegan(), torch.randn(8, *SHAPE)
    torch.manual_seed(1)
    first = judge(samples)
    assert not torch.equal(first, judge(samples))
    torch.manual_seed(1)
    assert torch.equal(first, judge(samples))
    judge.eval()
    assert torch.equal(judge(samples), judge(samples))
    still = wavegan(phase_shuffle=0)
    assert torch.equal(still(samples), still(samples))


def test_labels_change_what_is_said() -> None:
    zero, one = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long)
    for network, given in (
        (generator(2), torch.randn(3, 6)),
        (wavegan(2).eval(), torch.randn(3, *SHAPE)),
        (hifigan(2).eval(), torch.randn(3, *SHAPE)),
    ):
        assert not torch.allclose(network(given, zero), network(given, one))


def test_the_signal_keeps_its_size() -> None:
    torch.manual_seed(0)
    features = WaveGANDiscriminator((1, 4_096), widths=(32, 64, 128)).eval().trunk(torch.randn(8, 1, 4_096))
    assert 0.4 < features.square().mean() < 2.5
    waves = WaveGANGenerator((1, 4_096), widths=(128, 64, 32))(torch.randn(8, 100))
    assert 0.3 < waves.std() < 0.95


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: WaveGANGenerator((1, 100), widths=(8, 8)),
            r"WaveGANGenerator needs sounds \[C, T\] whose le",
        ),
        (lambda: WaveGANGenerator((1, 8, 8)), r"samples' shape is \[1, 8, 8\]"),
        (lambda: WaveGANDiscriminator(SHAPE, widths=()), "at least 1"),
        (lambda: WaveGANDiscriminator(SHAPE, widths=(4, 0)), r"widths \[4, 0\]"),
        (lambda: wavegan(phase_shuffle=16), "cannot shuffle phases by 16: give 0 to 15"),
        (lambda: HiFiGANDiscriminator((2, 256)), r"needs sounds \[1, T\] long enough"),
        (lambda: HiFiGANDiscriminator((1, 16)), r"long enough for periods \[2, 3, 5, 7, 11\] and 3 scales"),
        (lambda: hifigan(periods=(), scales=0), r"periods \[\], 0 scales"),
        (lambda: generator(2)(torch.randn(3, 6)), "pass labels"),
        (lambda: wavegan()(torch.randn(3, 1, 128)), "built for inputs"),
        (lambda: hifigan()(torch.randn(3, 1, 128)), "built for inputs"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(build, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        build()
    assert "\n" not in str(refused.value)
