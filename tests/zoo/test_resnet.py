import pytest
import torch
from contract import RESOLUTIONS, count, growth, record, rms
from torch import nn
from torch.nn import functional as F

from litgan.networks.layers import Norm
from litgan.zoo import ResNetDiscriminator, ResNetGenerator
from litgan.zoo.resnet import AdaptiveNorm, DiscriminatorBlock, GeneratorBlock

VARIANTS = {
    "sngan": ({}, {}),
    "biggan": (
        {
            "conditioning": "shared", "embedding_dim": 8, "hierarchical": True, "attention": 8,
            "spectral_norm": True, "initialization": "orthogonal",
        },
        {"wide": True, "attention": 8, "initialization": "orthogonal"},
    ),
}  # fmt: skip
BOTH = pytest.mark.parametrize("variant", VARIANTS)


def pair(variant, classes=0, resolution=16, width=16, channels=3, **options):
    """A generator from 4 x 4 and a discriminator down to 4 x 4."""
    of_generator, of_discriminator = VARIANTS[variant]
    shape, doublings = (channels, resolution, resolution), resolution.bit_length() - 3
    widths = [width] * doublings
    generator = ResNetGenerator(
        shape, classes, widths=widths, latent_dim=10 * (doublings + 1), **of_generator, **options
    )
    return generator, ResNetDiscriminator(
        shape, classes, widths=widths, flat_widths=[width], **of_discriminator
    )


def inputs(generator, count, classes):
    return torch.randn(count, generator.latent_dim), torch.arange(count) % classes if classes else None


def convolution(inputs, outputs, side):
    return inputs * side**2 * outputs + outputs


def test_sngan_32_has_the_parameters_of_the_paper():
    """Table 4 of Miyato et al. 2018, with the biases and 1 x 1 shortcuts of the authors' resnet_32.py."""
    block = 2 * 512 + 2 * convolution(256, 256, 3) + convolution(256, 256, 1)  # two batch norms come first
    dense = 128 * 4 * 4 * 256 + 4 * 4 * 256
    generator = dense + 3 * block + 512 + convolution(256, 3, 3)
    assert count(ResNetGenerator((3, 32, 32))) == generator == 4_276_739
    first = convolution(3, 128, 3) + convolution(128, 128, 3) + convolution(3, 128, 1)
    flat = 2 * convolution(128, 128, 3)
    discriminator = first + (flat + convolution(128, 128, 1)) + 2 * flat + 128 + 1  # theirs lacks the 1
    assert count(ResNetDiscriminator((3, 32, 32))) == discriminator == 1_053_825
    # With 10 classes: gains and biases of each class in 6 norms, and the projection's embedding.
    assert count(ResNetGenerator((3, 32, 32), 10)) == generator + 6 * (10 - 1) * 512
    assert count(ResNetDiscriminator((3, 32, 32), 10)) == discriminator + 10 * 128


@pytest.mark.parametrize("classes", [0, 3])
def test_gains_of_batch_norm_start_at_one(classes):
    """As chainer's batch norm does in the authors' code, with classes too."""
    generator, _ = pair("sngan", classes)
    norms = [part for part in generator.modules() if isinstance(part, Norm)]
    gains = [(norm.norm if norm.gain is None else norm.gain).weight for norm in norms]
    assert len(gains) == 5 and all((gain == 1).all() for gain in gains)


def test_biggan_128_has_the_parameters_of_the_paper():
    """ImageNet at 128 pixels, ch = 96; the counts are those of google/compare_gan's resnet_biggan_test.py.

    Brock et al. 2019, table 1, has 173.5 M before the embedding is shared and the latents are hierarchical.
    """
    shape, widths = (3, 128, 128), [96, 192, 384, 768, 1536]
    with torch.device("meta"):
        generator = ResNetGenerator(
            shape, 1000, latent_dim=120, widths=widths[::-1], conditioning="shared", embedding_dim=128,
            hierarchical=True, attention=64,
        )  # fmt: skip
        plain = ResNetGenerator(shape, 1000, widths=widths[::-1], attention=64)
        discriminator = ResNetDiscriminator(
            shape, 1000, widths=widths, flat_widths=[1536], wide=True, attention=64, spectral_norm=False
        )
    assert (count(generator), count(discriminator)) == (70_433_988, 87_982_370)
    assert round((count(plain) + count(discriminator)) / 1e6, 1) == 173.5


@BOTH
@pytest.mark.parametrize("classes", [0, 10])
@RESOLUTIONS
def test_signals_keep_their_size_at_the_start(variant, classes, resolution):
    """Generator: maps of rms 0.5 to 4, feedback whose norm each doubling halves (0.3 to 0.7).

    Discriminator: spectral norm makes layers contract, so that each block keeps 0.35 to 1.5 of the rms, and,
    in the backward pass, 0.15 to 1.6 of the gradient's norm (average pooling alone halves it).
    """
    torch.manual_seed(0)
    generator, discriminator = pair(variant, classes, resolution, width=32)
    latents, labels = inputs(generator, 4, classes)
    maps = record(
        (*generator.blocks, *discriminator.blocks),
        lambda: discriminator(generator(latents, labels), labels).sum().backward(),
    )
    of_g, of_d = maps[: len(generator.blocks)], maps[len(generator.blocks) :]
    assert all(0.5 < rms(each) < 4 for each in of_g) and 0.1 < rms(of_d[0]) < 0.6
    assert all(0.3 < feedback < 0.7 for _, feedback in growth(of_g))
    assert all(0.35 < signal < 1.5 and 0.15 < 1 / feedback < 1.6 for signal, feedback in growth(of_d))


def test_each_block_uses_its_own_chunk_of_hierarchical_latents():
    torch.manual_seed(0)
    generator, outputs = pair("biggan", 2, 32)[0].eval(), []
    for block in generator.blocks:
        block.register_forward_hook(lambda block, given, made: outputs.append(made))
    latents, labels = inputs(generator, 2, 2)
    generator(latents, labels)
    for chunk in range(4):  # the linear layer's, then one for each of three blocks
        other = latents.clone()
        other[:, 10 * chunk : 10 * (chunk + 1)] += 1
        del outputs[3:]
        generator(other, labels)
        same = [torch.equal(a, b) for a, b in zip(outputs[:3], outputs[3:], strict=True)]
        assert same == [block + 1 < chunk for block in range(3)]


def test_blocks_compute_what_the_papers_figure_shows():
    """Shortcuts are pooled before their 1 x 1 convolution and doubled after it: the same, but cheaper."""
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 8, 8, dtype=torch.double)
    block = GeneratorBlock(4, 6, lambda width: Norm("group", width), attention=False).double()
    up = nn.Upsample(scale_factor=2)
    residual = block.convolutions[0](up(F.relu(block.norms[0](maps))))
    residual = block.convolutions[1](F.relu(block.norms[1](residual)))
    torch.testing.assert_close(block(maps, None), residual + block.shortcut(up(maps)))
    for down, first, outputs in [(True, True, 6), (True, False, 6), (False, False, 6), (False, False, 4)]:
        block = DiscriminatorBlock(4, 5, outputs, down=down, first=first, attention=False).double()
        residual = block.convolutions[1](F.relu(block.convolutions[0](maps if first else F.relu(maps))))
        shortcut = block.shortcut(maps) if down or outputs != 4 else maps
        expected = F.avg_pool2d(residual + shortcut, 2) if down else residual + shortcut
        torch.testing.assert_close(block(maps), expected)


@pytest.mark.parametrize(("wide", "hidden"), [(False, [4, 4, 8]), (True, [4, 8, 6])])
def test_blocks_widen_where_the_paper_says_and_positions_are_summed(wide, hidden):
    discriminator = ResNetDiscriminator((3, 16, 16), widths=(4, 8), flat_widths=(6,), wide=wide).eval()
    assert [block.convolutions[0].out_channels for block in discriminator.blocks] == hidden
    samples = torch.rand(2, 3, 16, 16)
    maps = discriminator.blocks(samples)
    assert maps.shape == (2, 6, 4, 4)
    features = maps.clamp(min=0).flatten(2).sum(2)
    torch.testing.assert_close(discriminator(samples), discriminator.head(features))


def test_adaptive_norm_is_linear_in_its_condition():
    norm, maps, condition = AdaptiveNorm("group", 16, 5), torch.randn(3, 16, 4, 4), torch.randn(3, 5)
    plain = F.group_norm(maps, 1)
    torch.testing.assert_close(norm(maps, 0 * condition), plain)
    gain, bias = condition @ norm.gain.weight.T, condition @ norm.bias.weight.T
    expected = plain * (1 + gain[..., None, None]) + bias[..., None, None]
    torch.testing.assert_close(norm(maps, condition), expected)


def test_initializations_are_those_of_the_papers():
    orthogonal = ResNetGenerator((3, 16, 16), widths=(16, 16), initialization="orthogonal")
    for layer in orthogonal.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            rows = layer.weight.flatten(1)
            rows = rows.T if len(rows) > rows.shape[1] else rows
            torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
            assert not layer.bias.any()
    block = ResNetGenerator((3, 16, 16), widths=(64, 64)).blocks[0]
    glorot = (6 / (2 * 64)) ** 0.5  # the bound of the shortcut's uniform distribution
    assert 0.95 * glorot < block.shortcut.weight.abs().max() <= glorot
    assert 0.95 < block.convolutions[0].weight.abs().max() / (glorot / 3 * 2**0.5) <= 1
