import copy

import pytest
import torch
from torch import nn

from litgan.networks import DCGANDiscriminator, DCGANGenerator
from litgan.networks.layers import PixelNorm, initialise

NORMS = ["none", "batch", "group", "pixel"]


def labels(count, classes):
    return torch.arange(count) % classes if classes else None


def unlearning(network):
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("resolution", "widths"), [(8, (4,)), (8, (4, 4)), (32, (8, 4, 4)), (256, (6, 4, 4, 2, 2, 2))]
)
def test_any_power_of_two_and_any_channels(resolution, widths, channels):
    shape = (channels, resolution, resolution)
    generator = DCGANGenerator(shape, latent_dim=6, widths=widths)
    discriminator = DCGANDiscriminator(shape, widths=widths[::-1])
    fake = generator(torch.randn(3, 6))
    assert fake.shape == (3, *shape) and fake.abs().max() <= 1
    assert discriminator(fake).shape == (3, 1)
    assert discriminator.head.linear.in_features == widths[0] * (resolution >> len(widths)) ** 2


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("upsample", ["transposed", "nearest"])
@pytest.mark.parametrize("conditioning", ["norm", "concatenation"])
def test_every_parameter_learns(classes, norm, upsample, conditioning):
    torch.manual_seed(0)
    options = {"norm": norm, "initialisation": "he"}
    generator = DCGANGenerator(
        (3, 16, 16), classes, widths=(40, 32), upsample=upsample, conditioning=conditioning, **options
    )
    discriminator = DCGANDiscriminator((3, 16, 16), classes, widths=(24, 32), spectral_norm=True, **options)
    fake = generator(torch.randn(9, 128), labels(9, classes))
    discriminator(fake, labels(9, classes)).square().sum().backward()
    assert unlearning(generator) == unlearning(discriminator) == []


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("conditioning", ["norm", "concatenation"])
def test_labels_change_what_a_conditional_network_says(norm, conditioning):
    torch.manual_seed(0)
    zero, one = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    generator = DCGANGenerator((1, 16, 16), 2, widths=(32, 16), norm=norm, conditioning=conditioning)
    latents = torch.randn(4, 128)
    assert not torch.equal(generator(latents, zero), generator(latents, one))
    discriminator = DCGANDiscriminator((1, 16, 16), 2, widths=(16, 32), norm=norm)
    samples = torch.rand(4, 1, 16, 16)
    assert not torch.equal(discriminator(samples, zero), discriminator(samples, one))
    unconditional = DCGANGenerator((1, 16, 16), widths=(32, 16), norm=norm)
    assert torch.equal(unconditional(latents, one), unconditional(latents))


@pytest.mark.parametrize("norm", NORMS)
def test_mixes_samples_says_whether_a_sample_depends_on_the_batch(norm):
    torch.manual_seed(0)
    generator = DCGANGenerator((1, 16, 16), widths=(32, 16), norm=norm)
    discriminator = DCGANDiscriminator((1, 16, 16), widths=(16, 32), norm=norm, initialisation="he")
    for network, given in [(generator, torch.randn(6, 128)), (discriminator, torch.rand(6, 1, 16, 16))]:
        alone = torch.cat([network(one) for one in given.split(1)])
        assert network.mixes_samples == (norm == "batch")
        assert torch.allclose(alone, network(given), atol=1e-6) != network.mixes_samples


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
def test_he_initialisation_doubles_the_mean_square_that_relu_will_halve(layer, given):
    initialise(layer, "he")
    assert layer(given).square().mean().item() == pytest.approx(2, rel=0.15)
    initialise(layer, "dcgan")
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not layer.bias.any()


@pytest.mark.parametrize("conditioning", ["norm", "concatenation"])
def test_copies_and_state_dicts_are_equal(conditioning):
    options = {"latent_dim": 8, "widths": (32, 16), "conditioning": conditioning}
    generator, other = (DCGANGenerator((3, 16, 16), 5, **options) for _ in range(2))
    latents, classes = torch.randn(5, 8), labels(5, 5)
    generator(latents, classes)  # moves the running statistics
    other.load_state_dict(generator.state_dict())
    for twin in (other, copy.deepcopy(generator)):
        assert torch.equal(twin.eval()(latents, classes), generator.eval()(latents, classes))

    options = {"widths": (16, 32), "spectral_norm": True}
    discriminator, other = (DCGANDiscriminator((3, 16, 16), 5, **options) for _ in range(2))
    samples = torch.rand(5, 3, 16, 16)
    discriminator(samples, classes).sum().backward()
    other.load_state_dict(discriminator.state_dict())
    for twin in (other, copy.deepcopy(discriminator)):
        assert torch.equal(twin.eval()(samples, classes), discriminator.eval()(samples, classes))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("upsample", ["transposed", "nearest"])
def test_channels_last_changes_nothing(norm, upsample):
    torch.manual_seed(0)
    options = {"norm": norm, "initialisation": "he"}
    generator = DCGANGenerator((3, 16, 16), 4, widths=(32, 16), upsample=upsample, **options)
    discriminator = DCGANDiscriminator((3, 16, 16), 4, widths=(16, 32), **options)
    latents, classes = torch.randn(8, 128), labels(8, 4)
    plain = generator(latents, classes)
    logits = discriminator(plain, classes)
    generator, discriminator = (n.to(memory_format=torch.channels_last) for n in (generator, discriminator))
    fake = generator(latents, classes)
    torch.testing.assert_close(fake, plain, rtol=1e-4, atol=1e-5)
    again = discriminator(fake.contiguous(memory_format=torch.channels_last), classes)
    torch.testing.assert_close(again, logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_bfloat16_autocast_changes_little(norm):
    torch.manual_seed(0)
    generator = DCGANGenerator((3, 16, 16), 4, widths=(32, 16), norm=norm, initialisation="he")
    latents, classes = torch.randn(8, 128), labels(8, 4)
    exact = generator(latents, classes)
    with torch.autocast("cpu", torch.bfloat16):
        fake = generator(latents, classes)
        logits = DCGANDiscriminator((3, 16, 16), 4, widths=(16, 32), norm=norm)(fake, classes)
    assert (fake - exact).abs().mean() < 0.02 * exact.abs().mean() + 1e-3
    logits.float().sum().backward()
    assert unlearning(generator) == []


@pytest.mark.parametrize("norm", NORMS)
def test_the_networks_compile_to_one_graph(norm):
    torch.compiler.reset()
    generator = DCGANGenerator((1, 16, 16), 4, widths=(32, 16), norm=norm).eval()
    discriminator = DCGANDiscriminator((1, 16, 16), 4, widths=(16, 32), norm=norm, spectral_norm=True).eval()
    latents, classes = torch.randn(4, 128), labels(4, 4)
    fake = torch.compile(generator, backend="eager", fullgraph=True)(latents, classes)
    torch.testing.assert_close(fake, generator(latents, classes))
    logits = torch.compile(discriminator, backend="eager", fullgraph=True)(fake, classes)
    torch.testing.assert_close(logits, discriminator(fake, classes))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: DCGANGenerator((3, 48, 48)), "power of two"),
        (lambda: DCGANDiscriminator((3, 32, 64)), "square"),
        (lambda: DCGANGenerator((2,)), r"shape is \[2\]"),
        (lambda: DCGANGenerator((1, 8, 8)), "give 1 to 2"),
        (lambda: DCGANDiscriminator((1, 16, 16), widths=()), "widths has 0"),
        (lambda: DCGANDiscriminator((1, 16, 16), widths=(8, -1)), r"widths \[8, -1\]"),
        (lambda: DCGANGenerator((1, 32, 32), norm="instance"), "no norm 'instance'"),
        (lambda: DCGANGenerator((1, 32, 32), upsample="bilinear"), "no upsample 'bilinear'"),
        (lambda: DCGANGenerator((1, 32, 32), conditioning="film"), "no conditioning 'film'"),
        (lambda: DCGANGenerator((1, 32, 32), initialisation="xavier"), "no initialisation 'xavier'"),
        (lambda: DCGANGenerator((1, 32, 32), 10)(torch.randn(2, 128)), "conditioned on 10 classes"),
        (lambda: DCGANGenerator((1, 32, 32), 10)(torch.randn(2, 128), torch.zeros(2)), "int64"),
        (lambda: DCGANDiscriminator((1, 32, 32))(torch.zeros(2, 3, 32, 32)), "built for inputs"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(build, sentence):
    with pytest.raises(ValueError, match=sentence) as refused:
        build()
    assert "\n" not in str(refused.value)
