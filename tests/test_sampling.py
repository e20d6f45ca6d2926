from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from scipy.stats import truncnorm
from torch import nn

from litgan.checks import check_networks
from litgan.condition import choose_classes
from litgan.networks import DCGANGenerator, MLPDiscriminator, MLPGenerator
from litgan.noise import Noise
from litgan.sampling import CHUNK, generate_in_chunks, interpolate, truncate


def test_a_sample_does_not_depend_on_how_many_are_drawn(tiny_gan):
    gan = tiny_gan(condition=3)
    many = gan.sample(2 * CHUNK + 7, seed=4)
    assert many.shape == (2 * CHUNK + 7, 2) and len(many.unique(dim=0)) == len(many)
    for first, count in [(0, 1), (0, 64), (1, 10), (CHUNK - 1, 2), (2 * CHUNK, 7)]:
        few = gan.sample(count, seed=4, first=first)
        # Not bit for bit: a matrix product rounds differently for another number of rows.
        torch.testing.assert_close(few, many[first : first + count], rtol=0, atol=1e-6)
    assert not torch.allclose(many, gan.sample(len(many), seed=5))


def test_samples_are_made_in_evaluation_mode_and_the_mode_is_put_back():
    generator = DCGANGenerator((1, 8, 8), latent_dim=3, widths=(4, 4))
    buffers = {name: value.clone() for name, value in generator.named_buffers()}
    latents = torch.randn(6, 3)
    together = generate_in_chunks(generator, latents)
    alone = torch.cat([generate_in_chunks(generator, row[None]) for row in latents])
    torch.testing.assert_close(together, alone)  # batch statistics would tie them together
    assert generator.training and not together.requires_grad
    assert all(torch.equal(value, buffers[name]) for name, value in generator.named_buffers())


@pytest.mark.parametrize(
    ("labels", "first", "expected"),
    [
        (None, 0, [0, 1, 2, 0, 1]), (None, 2, [2, 0, 1, 2, 0]), ([2], 0, [2, 2, 2, 2, 2]),
        ([0, 2], 1, [2, 0, 2, 0, 2]), (torch.tensor([1, 0]), 0, [1, 0, 1, 0, 1]),
    ],
)  # fmt: skip
def test_labels_are_repeated_as_needed(labels, first, expected):
    assert choose_classes(labels, first, 5, 3).tolist() == expected
    assert choose_classes(None, first, 5, 0) is None


@pytest.mark.parametrize(("labels", "classes"), [([3], 3), ([-1], 3), ([0, 1, 7], 3), ([1], 0)])
def test_labels_that_are_no_classes_are_refused(labels, classes):
    with pytest.raises(ValueError, match=r"Classes \["):
        choose_classes(labels, 0, 5, classes)


@pytest.mark.parametrize("threshold", [0.3, 0.7, 2.0])
def test_truncation_gives_the_truncated_normal(threshold):
    latents = Noise(0, 0, 0, 2000).normal(50)
    truncated = truncate(latents, threshold)
    assert truncated.dtype == latents.dtype and truncated.abs().max() <= threshold
    order = latents.flatten().argsort()
    assert truncated.flatten()[order].diff().min() >= 0
    law = truncnorm(-threshold, threshold)
    assert truncated.var().item() == pytest.approx(law.var(), rel=0.02)
    torch.testing.assert_close(truncate(-latents, threshold), -truncated, rtol=1e-5, atol=1e-6)
    quantiles = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0])
    cumulative = [0.5 * math.erfc(-value / math.sqrt(2)) for value in quantiles.tolist()]
    torch.testing.assert_close(truncate(quantiles, threshold), torch.tensor(law.ppf(cumulative)).float())


def test_truncation_at_its_limits():
    latents = torch.tensor([-40.0, -2.0, 0.0, 2.0, 40.0])
    assert truncate(latents, 0.7).abs().max() == pytest.approx(0.7)  # far tails stay finite
    torch.testing.assert_close(truncate(latents[1:4], 8.0), latents[1:4], rtol=1e-5, atol=1e-6)
    for threshold in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"The truncation is {threshold}: give a positive threshold"):
            truncate(latents, threshold)


class Echo(nn.Module):
    """Its samples are its latents; `truncates` says that it takes the truncation itself."""

    latent_dim = 2

    def __init__(self, sample_shape, num_classes, *, truncates):
        super().__init__()
        self.truncates, self.weight = truncates, nn.Parameter(torch.zeros(1))

    def forward(self, latents, labels=None, truncation=0.0):
        return latents + truncation


def test_truncation_reaches_the_generator(tiny_gan):
    latents = Noise(0, 0, 0, 100, "sample").normal(2)
    drawn = tiny_gan(generator=partial(Echo, truncates=False)).sample(100, truncation=0.5)
    torch.testing.assert_close(drawn, truncate(latents, 0.5))
    drawn = tiny_gan(generator=partial(Echo, truncates=True)).sample(100, truncation=0.5)
    torch.testing.assert_close(drawn, latents + 0.5)


def test_interpolation_follows_the_great_circle():
    start, end = torch.tensor([2.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    path = interpolate(start, end, 5)
    torch.testing.assert_close(path[[0, -1]], torch.stack([start, end]), atol=1e-6, rtol=0)
    torch.testing.assert_close(path.norm(dim=1), torch.full((5,), 2.0))
    steps = torch.linalg.vector_norm(path.diff(dim=0), dim=1)
    equal = 4 * math.sin(math.pi / 16)  # the chord of 22.5 degrees on a circle of radius 2
    torch.testing.assert_close(steps, torch.full((4,), equal))
    latents = Noise(0, 0, 0, 2).normal(512)
    norms = interpolate(*latents, 9).norm(dim=1)
    assert norms.min() > 0.95 * latents.norm(dim=1).min()  # a straight line would fall to 0.71


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_interpolation_along_a_line_through_the_origin_is_straight(factor):
    start = torch.tensor([0.6, 0.8])
    expected = torch.stack([start, (1 + factor) / 2 * start, factor * start])
    torch.testing.assert_close(interpolate(start, factor * start, 3), expected)


MAKER, CRITIC = MLPGenerator((2,)), MLPDiscriminator((2,))


class Wrong(nn.Module):
    """Logits of a wrong rank."""

    def forward(self, samples, labels=None):
        return samples.sum(1)


def test_networks_that_fit_pass_and_are_left_as_they_were():
    for classes in (0, 3):
        generator = MLPGenerator((2,), classes)
        discriminator = MLPDiscriminator((2,), classes, spectral_norm=True)
        before = {name: value.clone() for name, value in discriminator.state_dict().items()}
        check_networks(generator, discriminator, (2,), classes)
        assert generator.training and discriminator.training
        assert all(torch.equal(value, before[name]) for name, value in discriminator.state_dict().items())


@pytest.mark.parametrize(
    ("generator", "discriminator", "classes", "sentence"),
    [
        (MLPGenerator((3,)), CRITIC, 0, r"MLPGenerator makes samples of shape \(3,\) but the data's"),
        (MLPGenerator((2,), 2), CRITIC, 3, "MLPGenerator does not fit latents and labels of 3 classes"),
        (nn.Linear(2, 2), CRITIC, 0, "Linear has no integer attribute latent_dim: add one"),
        (MAKER, MLPDiscriminator((3,)), 0, r"MLPDiscriminator was built for inputs \['B', 3\]"),
        (MLPGenerator((2,), 3), MLPDiscriminator((2,), 2), 3, "MLPDiscriminator does not fit samples"),
        (MAKER, Wrong(), 0, r"Wrong returns logits of shape \(1,\): make it \[B, K\]"),
    ],
)  # fmt: skip
def test_networks_that_do_not_fit_are_named(generator, discriminator, classes, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        check_networks(generator, discriminator, (2,), classes)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value) and ".." not in str(caught.value)
