import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from litgan.networks import ResNetDiscriminator, ResNetGenerator
from litgan.networks.attention import SelfAttention
from litgan.networks.layers import AdaptiveNorm, Norm
from litgan.networks.resnet import DiscriminatorBlock, GeneratorBlock

VARIANTS = {
    "sngan": ({}, {}),
    "biggan": (
        {
            "conditioning": "shared", "embedding_dim": 8, "hierarchical": True, "attention": 8,
            "spectral_norm": True, "initialisation": "orthogonal",
        },
        {"wide": True, "attention": 8, "initialisation": "orthogonal"},
    ),
}  # fmt: skip
BOTH = pytest.mark.parametrize("variant", VARIANTS)
CONDITIONS = pytest.mark.parametrize("classes", [0, 3])


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


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def awaken(*networks):
    """Lets attention speak, which starts silent."""
    for layer in itertools.chain(*(network.modules() for network in networks)):
        if isinstance(layer, SelfAttention):
            nn.init.constant_(layer.gamma, 0.5)


def unlearning(network):
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def rms(maps):
    return maps.square().mean().sqrt().item()


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
@pytest.mark.parametrize(("resolution", "channels"), [(32, 1), (64, 3), (128, 4), (256, 3)])
def test_any_power_of_two_and_any_channels(variant, resolution, channels):
    generator, discriminator = pair(variant, 0, resolution, width=8, channels=channels)
    fake = generator(*inputs(generator, 2, 0))
    assert fake.shape == (2, channels, resolution, resolution) and fake.abs().max() <= 1
    assert discriminator(fake).shape == (2, 1)


@BOTH
@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_signals_keep_their_size_at_the_start(variant, classes, resolution):
    """Generator: maps of rms 0.5 to 4, feedback whose norm each doubling halves (0.3 to 0.7).

    Discriminator: spectral norm makes layers contract, so that each block keeps 0.35 to 1.5 of the rms, and,
    on the way back, 0.15 to 1.6 of the gradient's norm (average pooling alone halves it).
    """
    torch.manual_seed(0)
    generator, discriminator = pair(variant, classes, resolution, width=32)
    maps = []
    for block in (*generator.blocks, *discriminator.blocks):
        block.register_forward_hook(lambda block, given, made: maps.append(made))
        block.register_forward_hook(lambda block, given, made: made.retain_grad())
    latents, labels = inputs(generator, 4, classes)
    discriminator(generator(latents, labels), labels).sum().backward()
    made, judged = maps[: len(generator.blocks)], maps[len(generator.blocks) :]
    assert all(0.5 < rms(each) < 4 for each in made)
    for before, after in itertools.pairwise(made):
        assert 0.3 < after.grad.norm() / before.grad.norm() < 0.7
    assert 0.1 < rms(judged[0]) < 0.6
    for before, after in itertools.pairwise(judged):
        assert 0.35 < rms(after) / rms(before) < 1.5
        assert 0.15 < before.grad.norm() / after.grad.norm() < 1.6


@CONDITIONS
@BOTH
@pytest.mark.parametrize("norm", ["none", "batch", "group", "pixel"])
def test_every_parameter_learns(variant, classes, norm):
    torch.manual_seed(0)
    generator, discriminator = pair(variant, classes, width=32, norm=norm)
    awaken(generator, discriminator)
    latents, labels = inputs(generator, 9, classes)
    discriminator(generator(latents, labels), labels).square().sum().backward()
    assert unlearning(generator) == unlearning(discriminator) == []


@pytest.mark.parametrize("conditioning", ["norm", "shared"])
def test_labels_change_what_a_conditional_network_says(conditioning):
    torch.manual_seed(0)
    zero, one = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    options = {"widths": (16, 16), "conditioning": conditioning}
    generator, latents = ResNetGenerator((1, 16, 16), 2, **options), torch.randn(4, 128)
    assert not torch.equal(generator(latents, zero), generator(latents, one))
    discriminator = ResNetDiscriminator((1, 16, 16), 2, widths=(16, 16), flat_widths=())
    samples = torch.rand(4, 1, 16, 16)
    assert not torch.equal(discriminator(samples, zero), discriminator(samples, one))
    unconditional = ResNetGenerator((1, 16, 16), **options)
    assert torch.equal(unconditional(latents, one), unconditional(latents))


@pytest.mark.parametrize("norm", ["batch", "group"])
@BOTH
def test_mixes_samples_says_whether_a_sample_depends_on_the_batch(variant, norm):
    torch.manual_seed(0)
    generator, discriminator = pair(variant, norm=norm)
    awaken(generator, discriminator)
    discriminator.eval()  # else each pass moves the power iteration
    generator.eval().norm.train()  # of the norms, one is enough
    latents, _ = inputs(generator, 6, 0)
    for network, given in [(generator, latents), (discriminator, torch.rand(6, 3, 16, 16))]:
        alone = torch.cat([network(one) for one in given.split(1)])
        assert network.mixes_samples == (network is generator and norm == "batch")
        assert torch.allclose(alone, network(given), atol=1e-5) != network.mixes_samples


def test_each_block_hears_its_own_chunk_of_hierarchical_latents():
    torch.manual_seed(0)
    generator, heard = pair("biggan", 2, 32)[0].eval(), []
    for block in generator.blocks:
        block.register_forward_hook(lambda block, given, made: heard.append(made))
    latents, labels = inputs(generator, 2, 2)
    generator(latents, labels)
    for chunk in range(4):  # the linear layer's, then one for each of three blocks
        other = latents.clone()
        other[:, 10 * chunk : 10 * (chunk + 1)] += 1
        del heard[3:]
        generator(other, labels)
        same = [torch.equal(a, b) for a, b in zip(heard[:3], heard[3:], strict=True)]
        assert same == [block + 1 < chunk for block in range(3)]


def test_blocks_compute_what_the_paper_draws():
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


@BOTH
def test_weights_are_spectrally_normalised_but_not_the_generators_embeddings(variant):
    torch.manual_seed(0)
    generator, discriminator = pair(variant, 3)
    latents, labels = inputs(generator, 3, 3)
    for _ in range(30):  # the power iteration moves with each pass
        discriminator(generator(latents, labels), labels)
    normalised = {discriminator, generator} if variant == "biggan" else {discriminator}
    for network, layer in ((n, layer) for n in (generator, discriminator) for layer in n.modules()):
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and network in normalised:
            largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
            assert largest.item() == pytest.approx(1, abs=0.03)
        elif isinstance(layer, (nn.Linear, nn.Conv2d, nn.Embedding)):
            assert parametrize.is_parametrized(layer) == (network is discriminator)


def test_initialisations_are_those_of_the_papers():
    orthogonal = ResNetGenerator((3, 16, 16), widths=(16, 16), initialisation="orthogonal")
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


@CONDITIONS
@BOTH
def test_copies_and_state_dicts_are_equal(variant, classes):
    (generator, discriminator), (other, judge) = pair(variant, classes), pair(variant, classes)
    latents, labels = inputs(generator, 5, classes)
    fake = generator(latents, labels).detach()  # moves the running statistics
    discriminator(fake, labels).sum().backward()
    for network, twin, given in [(generator, other, latents), (discriminator, judge, fake)]:
        twin.load_state_dict(network.state_dict())
        for same in (twin, copy.deepcopy(network)):
            assert torch.equal(same.eval()(given, labels), network.eval()(given, labels))


@BOTH
def test_channels_last_changes_nothing(variant):
    torch.manual_seed(0)
    networks = pair(variant, 3)
    awaken(*networks)
    generator, discriminator = (network.eval() for network in networks)
    latents, labels = inputs(generator, 8, 3)
    plain = generator(latents, labels)
    logits = discriminator(plain, labels)
    generator, discriminator = (n.to(memory_format=torch.channels_last) for n in (generator, discriminator))
    fake = generator(latents, labels)
    torch.testing.assert_close(fake, plain, rtol=1e-4, atol=1e-5)
    again = discriminator(fake.contiguous(memory_format=torch.channels_last), labels)
    torch.testing.assert_close(again, logits, rtol=1e-3, atol=1e-4)


@BOTH
def test_bfloat16_autocast_changes_little(variant):
    torch.manual_seed(0)
    networks = pair(variant, 3)
    awaken(*networks)
    generator, discriminator = (network.eval() for network in networks)
    latents, labels = inputs(generator, 8, 3)
    exact = generator(latents, labels)
    judged = discriminator(exact, labels)
    with torch.autocast("cpu", torch.bfloat16):
        fake = generator(latents, labels)
        logits = discriminator(fake, labels)
    assert (fake - exact).abs().mean() < 0.03 * exact.abs().mean()
    assert (logits - judged).abs().mean() < 0.03 * judged.abs().mean()
    logits.float().sum().backward()
    assert unlearning(generator) == []


@pytest.mark.parametrize("training", [False, True])
@BOTH
def test_the_networks_compile_to_one_graph(variant, training):
    torch.compiler.reset()
    networks = pair(variant, 3)
    awaken(*networks)
    latents, labels = inputs(networks[0], 4, 3)
    given = latents
    for network in networks:
        network.train(training)
        plain = copy.deepcopy(network)(given, labels)  # training moves statistics and power iterations
        compiled = torch.compile(network, backend="eager", fullgraph=True)(given, labels)
        torch.testing.assert_close(compiled, plain)
        given = plain


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: ResNetGenerator((3, 48, 48)), "power of two"),
        (lambda: ResNetDiscriminator((3, 32, 64)), "square"),
        (lambda: ResNetGenerator((1, 8, 8)), "give 1 to 2"),
        (lambda: ResNetDiscriminator((1, 16, 16), widths=()), "widths has 0"),
        (lambda: ResNetDiscriminator((1, 16, 16), widths=(8,) * 4), "give 1 to 3"),
        (lambda: ResNetDiscriminator((1, 16, 16), flat_widths=(8, -1)), r"widths \[8, -1\]"),
        (lambda: ResNetGenerator((1, 32, 32), norm="instance"), "no norm 'instance'"),
        (lambda: ResNetGenerator((1, 32, 32), conditioning="film"), "no conditioning 'film'"),
        (lambda: ResNetGenerator((1, 32, 32), initialisation="xavier"), "no initialisation 'xavier'"),
        (lambda: ResNetGenerator((1, 32, 32), hierarchical=True, latent_dim=30), "that 4 divides"),
        (lambda: ResNetGenerator((1, 32, 32), 2, hierarchical=True), "set conditioning to shared"),
        (lambda: ResNetGenerator((1, 32, 32), attention=4), r"one of \[8, 16, 32\]"),
        (lambda: ResNetDiscriminator((1, 32, 32), attention=32), r"one of \[8, 16\]"),
        (lambda: ResNetGenerator((1, 32, 32), 10)(torch.randn(2, 128)), "conditioned on 10 classes"),
        (lambda: ResNetDiscriminator((1, 32, 32), 10)(torch.zeros(2, 1, 32, 32)), "pass labels"),
        (lambda: ResNetGenerator((1, 32, 32), 10)(torch.randn(2, 128), torch.zeros(2)), "int64"),
        (lambda: ResNetGenerator((1, 32, 32))(torch.randn(2, 100)), "built for inputs"),
        (lambda: ResNetDiscriminator((1, 32, 32))(torch.zeros(2, 3, 32, 32)), "built for inputs"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        build()
    assert "\n" not in str(refused.value)
