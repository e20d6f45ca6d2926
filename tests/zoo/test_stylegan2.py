import itertools
import math

import pytest
import torch
from contract import RESOLUTIONS, count, growth, record, rms
from torch.nn import functional as F

from litgan import sampling
from litgan.ema import EMA
from litgan.noise import Noise
from litgan.sampling import Sampler
from litgan.zoo import StyleGAN2Discriminator, StyleGAN2Generator
from litgan.zoo.equalized import FIR, EqualizedConv2d, EqualizedLinear
from litgan.zoo.modulation import ModulatedConv2d, StyledConv
from litgan.zoo.stylegan2 import MinibatchStd

CONDITIONS = pytest.mark.parametrize("classes", [0, 3])
PIXELS = (1, 16, 16)


def pair(classes=0, resolution=16, width=16, channels=3, **options):
    """A generator of latents and styles of length 24 with nonzero noise strength, and a discriminator."""
    shape, widths = (channels, resolution, resolution), [width] * (resolution.bit_length() - 2)
    sizes = {"latent_dim": 24, "style_dim": 24, "widths": widths, "mapping_layers": 2}
    generator = StyleGAN2Generator(shape, classes, **sizes | options)
    for layer in generator.synthesis.layers:
        if layer.noise_strength is not None:
            torch.nn.init.constant_(layer.noise_strength, 0.3)
    return generator, StyleGAN2Discriminator(shape, classes, widths=widths, mapping_layers=2)


def inputs(generator, count, classes=0):
    return torch.randn(count, generator.latent_dim), torch.arange(count) % classes if classes else None


def test_the_networks_have_the_parameters_of_the_paper():
    """Paper256 (StyleGAN2-ADA) and configuration F at 1024 x 1024 (StyleGAN2), without classes.

    Rows as the authors' code prints them: NVlabs/stylegan2-ada-pytorch, issues 181 (discriminator) and 182,
    and open-mmlab/mmgeneration, issue 394 (generator). The paper rounds configuration F to 30 M and 29 M.
    """
    mapping, first = 8 * 262_656, 8_192 + 2_622_465 + 264_195
    wide = 2 * 2_622_465 + 264_195  # 512 -> 512 channels
    to_256 = 1_442_561 + 721_409 + 132_099
    to_128, to_64 = 426_369 + 213_249 + 66_051, 139_457 + 69_761 + 33_027
    to_32 = 51_297 + 25_665 + 16_515
    of_32, of_64 = 2_048 + 9_248 + 18_496, 8_192 + 36_928 + 73_856  # discriminator: 32 -> 64, 64 -> 128
    of_128, of_256 = 32_768 + 147_584 + 295_168, 131_072 + 590_080 + 1_180_160
    of_512, last = 262_144 + 2 * 2_359_808, 2_364_416 + 4_194_816 + 513
    widths = [512, 512, 512, 512, 256, 128, 64]
    with torch.device("meta"):
        generator = StyleGAN2Generator((3, 256, 256), widths=widths)
        discriminator = StyleGAN2Discriminator((3, 256, 256), widths=widths[::-1], group_size=8)
        large = StyleGAN2Generator((3, 1024, 1024), widths=[512, *widths, 32])
        large_discriminator = StyleGAN2Discriminator((3, 1024, 1024), widths=[512, *widths, 32][::-1])
    expected = mapping + first + 3 * wide + to_256 + to_128 + to_64
    assert count(generator) == expected == 24_767_458
    assert count(large) == expected + wide + to_32 == 30_370_060
    expected = 256 + of_64 + of_128 + of_256 + 3 * of_512 + last
    assert count(discriminator) == expected == 24_001_089
    assert count(large_discriminator) == expected - 256 + 128 + of_32 + of_512 == 29_012_513


@pytest.mark.parametrize("classes", [0, 10])
@RESOLUTIONS
def test_signals_keep_their_size_at_the_start(classes, resolution):
    """Generator: maps of rms 0.2 to 1.1; a layer that keeps the side keeps the norm of the feedback (0.7 to
    1.4), one that doubles it gets 0.25 to 0.95 of what it passes on. Images have an rms of 0.5 to 3.

    Discriminator: a block keeps 0.5 to 1.3 of the rms and, in the backward pass, 0.25 to 0.65 of the norm.
    """
    torch.manual_seed(0)
    generator, discriminator = pair(classes, resolution, width=32, mapping_layers=8)
    latents, labels = inputs(generator, 2, classes)
    fakes = []

    def run():
        fakes.append(generator(latents, labels))
        discriminator(fakes[0], labels).sum().backward()

    maps = record((*generator.synthesis.layers, *discriminator.blocks), run)
    layers = len(generator.synthesis.layers)
    of_g, of_d = maps[:layers], maps[layers:]
    assert 0.5 < rms(fakes[0]) < 3
    assert all(0.2 < rms(each) < 1.1 for each in of_g)
    for (before, after), (_, feedback) in zip(itertools.pairwise(of_g), growth(of_g), strict=True):
        low, high = (0.7, 1.4) if after.shape == before.shape else (0.25, 0.95)
        assert low < feedback < high
    assert all(0.5 < signal < 1.3 and 0.25 < 1 / feedback < 0.65 for signal, feedback in growth(of_d))


def test_equalized_layers_keep_unit_weights_and_unit_signals():
    torch.manual_seed(0)
    for network in pair(3, width=64):
        mapping = {id(layer.weight): layer for layer in network.mapping.layers}
        for name, weight in network.named_parameters():
            if weight.ndim > 1 and "bias" not in name:
                lr_multiplier = 0.01 if id(weight) in mapping else 1
                assert (lr_multiplier * weight).std().item() == pytest.approx(
                    1, abs=4 / (2 * weight.numel()) ** 0.5
                )
    for gain, lr_multiplier in [(1.0, 1.0), (3.0, 0.01)]:
        linear = EqualizedLinear(200, 300, bias=0.5, gain=gain, lr_multiplier=lr_multiplier)
        made = linear(torch.randn(500, 200)) / gain
        assert made.mean().item() == pytest.approx(0.5, abs=0.03)
        assert made.std().item() == pytest.approx(1, abs=0.03)
        made.sum().backward()  # a step of Adam is as long for all weights: times lr_multiplier
        torch.testing.assert_close(linear.bias.grad, torch.full((300,), 500 * lr_multiplier))
    convolution = EqualizedConv2d(64, 300, 3, gain=2.0)
    inner = convolution(torch.randn(8, 64, 16, 16))[..., 1:-1, 1:-1]
    assert inner.std().item() == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize("grouped", [False, True])
def test_demodulated_maps_have_unit_variance_whatever_the_style(grouped):
    torch.manual_seed(0)
    convolution = ModulatedConv2d(64, 48, 3, 20, grouped=grouped)
    maps, styles = torch.randn(4, 64, 32, 32), torch.randn(4, 20) * torch.tensor([0.1, 1, 10, 100])[:, None]
    inner = convolution(maps, styles)[..., 1:-1, 1:-1]
    assert inner.var((1, 2, 3)).tolist() == pytest.approx([1] * 4, abs=0.1)
    plain = ModulatedConv2d(64, 48, 3, 20, demodulate=False, grouped=grouped)
    made = plain(maps, styles)[..., 1:-1, 1:-1].var((1, 2, 3))
    assert made[3] > 1000 * made[0]


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_grouped_and_unfused_forms_are_equal(demodulate, up):
    torch.manual_seed(0)
    unfused = ModulatedConv2d(12, 10, 3, 8, demodulate=demodulate, up=up, gain=1.5)
    grouped = ModulatedConv2d(12, 10, 3, 8, demodulate=demodulate, up=up, gain=1.5, grouped=True)
    grouped.load_state_dict(unfused.state_dict())
    maps, style = torch.randn(5, 12, 8, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    made = []
    for form in (unfused, grouped):
        maps.grad = style.grad = None
        outputs = form(maps, style)
        outputs.square().sum().backward()
        made.append((outputs, maps.grad, style.grad, form.weight.grad))
    for a, b in zip(*made, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_modulated_convolution_follows_equations_1_and_3():
    torch.manual_seed(0)
    convolution = ModulatedConv2d(3, 4, 3, 5).double()
    maps, style = torch.randn(2, 3, 6, 6).double(), torch.randn(2, 5).double()
    for sample in range(2):
        scales = convolution.affine(style)[sample]
        weight = convolution.weight * scales[None, :, None, None]
        weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        expected = F.conv2d(maps[sample : sample + 1], weight, padding=1)
        torch.testing.assert_close(convolution(maps, style)[sample : sample + 1], expected)


def test_what_is_built_by_hand_has_first_and_second_derivatives():
    """Path length and R1 need the second."""
    torch.manual_seed(0)
    maps, style = torch.randn(2, 2, 2, 2).double(), torch.randn(2, 2).double()
    for grouped in (False, True):
        convolution = ModulatedConv2d(2, 1, 3, 2, up=True, grouped=grouped).double()
        given = maps.requires_grad_(), style.requires_grad_()
        assert torch.autograd.gradgradcheck(convolution, given)
    fir, maps = FIR().double(), torch.randn(1, 2, 4, 4).double().requires_grad_()
    for made in (fir.downsample, fir.upsample, lambda maps: fir(maps, padding=2, gain=3.0)):
        assert torch.autograd.gradcheck(made, (maps,)) and torch.autograd.gradgradcheck(made, (maps,))


def test_the_filter_is_the_binomial_one_and_keeps_the_level():
    fir, impulse = FIR(), torch.zeros(1, 2, 7, 7)
    impulse[0, 1, 3, 3] = 1
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    expected = torch.zeros(1, 2, 8, 8)
    expected[0, 1, 2:6, 2:6] = torch.outer(taps, taps)
    torch.testing.assert_close(fir(impulse, padding=2), expected)
    level = torch.full((1, 1, 8, 8), 5.0)
    torch.testing.assert_close(fir.downsample(level)[..., 1:-1, 1:-1], level[..., :2, :2])
    torch.testing.assert_close(fir.upsample(level)[..., 1:-1, 1:-1], level.new_full((1, 1, 14, 14), 5.0))
    maps = torch.randn(2, 3, 8, 8)
    kernel = fir.kernel.expand(3, -1, -1, -1)
    torch.testing.assert_close(fir.downsample(maps), F.conv2d(maps, kernel, padding=1, stride=2, groups=3))
    upsampled = F.conv_transpose2d(maps, 4 * kernel, padding=1, stride=2, groups=3)
    torch.testing.assert_close(fir.upsample(maps), upsampled)
    # Away from the border doubling is bilinear interpolation.
    interpolated = F.interpolate(maps, scale_factor=2, mode="bilinear")[..., 1:-1, 1:-1]
    torch.testing.assert_close(fir.upsample(maps)[..., 1:-1, 1:-1], interpolated)


def test_minibatch_deviation_of_a_batch_made_by_hand():
    """Samples 0 and 2 form a group, and 1 and 3; the four channels make two, of two each."""
    maps = torch.zeros(4, 4, 2, 2)
    maps[0], maps[2] = 1, 5  # deviation 2 in all channels
    maps[3, 2:] = 6  # deviation 3 in the last two
    made = MinibatchStd(2, 2)(maps)
    assert torch.equal(made[:, :4], maps)
    expected = torch.tensor([[2.0, 2.0], [0.0, 3.0], [2.0, 2.0], [0.0, 3.0]])
    torch.testing.assert_close(made[:, 4:], expected[:, :, None, None].expand(4, 2, 2, 2), atol=2e-4, rtol=0)
    whole = MinibatchStd(100, 1)(maps)[:, 4]  # the batch is the group
    first, rest = (torch.tensor([1.0, 0, 5, last]).std(correction=0) for last in (0, 6))
    torch.testing.assert_close(whole, ((first + rest) / 2).expand(4, 2, 2))
    assert torch.equal(MinibatchStd(3, 2)(maps), made)  # 3 does not divide 4, but 2 does
    assert MinibatchStd(4, 1)(maps[:1])[:, 4].max() < 2e-4  # one sample does not vary


@CONDITIONS
def test_the_average_style_converges_and_is_copied_to_the_ema(classes):
    torch.manual_seed(0)
    generator, _ = pair(classes)
    with torch.no_grad():
        for layer in generator.mapping.layers:  # as after some training: a mean that is not 0
            layer.bias.normal_(0, 100)
    ema = EMA(generator, halflife=100)
    with torch.no_grad():
        many, labels = inputs(generator, 3000, classes)
        drawn = generator.mapping(many, labels)
        for _ in range(1500):
            generator.styles(*inputs(generator, 6, classes))
    error = (generator.average_style - drawn.mean(0)).norm() / drawn.mean(0).norm()
    assert error < 0.1
    generator.eval().styles(*inputs(generator, 6, classes))
    before = ema.average.average_style.clone()
    ema.update(generator, images_seen=100, images=6)
    assert not before.any() and torch.equal(ema.average.average_style, generator.average_style)


def test_the_average_style_moves_by_a_two_hundredth_a_batch():
    """w_avg_beta 0.995 in both codes of StyleGAN2-ADA."""
    generator, _ = pair()
    latents, _ = inputs(generator, 6)
    generator.styles(latents)
    torch.testing.assert_close(generator.average_style, (1 - 0.995) * generator.mapping(latents).mean(0))


@CONDITIONS
def test_truncation_0_gives_one_picture_and_1_changes_nothing(classes):
    torch.manual_seed(0)
    generator, _ = pair(classes)
    latents, labels = inputs(generator, 4, classes)
    generator.styles(latents, labels)  # moves the average
    generator.eval()
    plain, styles = generator(latents, labels), generator.styles(latents, labels)
    one = generator(latents, labels, truncation=0.0)
    torch.testing.assert_close(one, one[:1].expand_as(one), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(plain, plain[:1].expand_as(plain), atol=1e-2)
    torch.testing.assert_close(generator(latents, labels, truncation=1.0), plain)
    torch.testing.assert_close(generator(latents, labels, truncation=0.0, cutoff=0), plain)
    half = generator.styles(latents, labels, truncation=0.5, cutoff=2)
    torch.testing.assert_close(half[:, :2], (styles[:, :2] + generator.average_style) / 2)
    assert torch.equal(half[:, 2:], styles[:, 2:])


def test_noise_is_fixed_in_evaluation_and_fresh_in_training():
    torch.manual_seed(0)
    layer = StyledConv(4, 4, 8, 5, up=False, noise=True, grouped=False)
    torch.nn.init.ones_(layer.noise_strength)
    maps, style = torch.zeros(2, 4, 8, 8), torch.zeros(2, 5)
    first, second = layer(maps, style), layer(maps, style)
    assert not torch.equal(first, second) and not torch.equal(first[0], first[1])
    torch.manual_seed(7)
    seeded = layer(maps, style)
    torch.manual_seed(7)
    assert torch.equal(layer(maps, style), seeded)  # from torch's own generator, which the GAN seeds
    assert torch.equal(seeded[:, 0], seeded[:, 3])  # one plane for all channels
    layer.eval()
    fixed = layer(maps, style)
    assert torch.equal(layer(maps, style), fixed) and torch.equal(fixed[0], fixed[1])
    expected = F.leaky_relu(layer.noise, 0.2) * 2**0.5
    torch.testing.assert_close(fixed[0, 0], expected)
    generator, _ = pair(noise=False)
    latents, _ = inputs(generator, 2)
    assert torch.equal(generator(latents), generator(latents))
    assert not any("noise" in name for name, _ in generator.named_buffers())


def test_each_sample_gets_noise_of_its_own_in_evaluation_too():
    """As for published FIDs; a layer adds strength * plane before leaky ReLU with gain sqrt 2 (figure 2d)."""
    layer = StyledConv(4, 4, 8, 5, up=False, noise=True, grouped=False).eval()
    torch.nn.init.constant_(layer.noise_strength, 0.5)
    drawn = Noise(0, 0, 0, 2, "sample")
    made = layer(torch.zeros(2, 4, 8, 8), torch.zeros(2, 5), drawn)
    expected = F.leaky_relu(0.5 * drawn.normal(1, 8, 8), 0.2) * 2**0.5
    torch.testing.assert_close(made, expected.expand_as(made))

    generator, _ = pair()
    sampler = Sampler(generator, noise=Noise(0, 0, 70, 4, "sample"))
    same = sampler(torch.ones(4, 24))
    spread = same.std(0).mean()
    assert spread > 0.05 and same.flatten(1).unique(dim=0).shape[0] == 4
    for k in range(4):  # a function of the index alone
        alone = Sampler(generator, noise=Noise(0, 0, 70 + k, 1, "sample"))(torch.ones(1, 24))
        torch.testing.assert_close(alone[0], same[k])
    planes = []
    for layer in generator.synthesis.layers:
        layer.register_forward_hook(lambda layer, given, made: planes.append(given[2].normal(1, 4, 4)))
    sampler(torch.ones(4, 24))
    assert len(torch.cat(planes).flatten(1).unique(dim=0)) == 4 * len(generator.synthesis.layers)
    fixed, _ = pair(fixed_noise=True)
    same = Sampler(fixed, noise=Noise(0, 0, 0, 4, "sample"))(torch.ones(4, 24))
    torch.testing.assert_close(same, same[:1].expand_as(same))


def test_samples_of_a_gan_are_functions_of_seed_and_index_with_noise_too(tiny_gan, monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK", 3)
    gan = tiny_gan(
        generator=lambda shape, classes: pair()[0],
        discriminator=lambda shape, classes: pair()[1],
        sample_shape=(3, 16, 16),
    )
    whole = gan.sample(8, seed=1)
    torch.testing.assert_close(torch.cat([gan.sample(3, seed=1), gan.sample(5, seed=1, first=3)]), whole)
    latents = Noise(1, 0, 0, 8, "sample").normal(24)
    assert (gan(latents) - whole).abs().mean() > 0.02  # without random numbers the noise is fixed
    assert torch.equal(gan(latents[:2]), gan(latents[:2]))


def test_style_mixing_swaps_the_styles_of_later_layers_in_training_only():
    torch.manual_seed(0)
    generator, _ = pair(style_mixing=0.75, resolution=32)
    latents, _ = inputs(generator, 2000)
    with torch.no_grad():
        styles = generator.styles(latents)
        own = (styles == generator.mapping(latents)[:, None]).all(2)  # [B, 8]
    assert own[:, 0].all()
    assert torch.equal(own.cummin(1).values, own)  # a sample changes its style at most once
    assert 1 - own[:, -1].float().mean() == pytest.approx(0.75, abs=0.03)
    places = own[~own[:, -1]].sum(1).bincount(minlength=8)[1:]
    assert places.min() > 0.7 * places.max()  # each of the 7 places as often
    assert torch.equal(generator.eval().styles(latents)[:, 0], generator.styles(latents)[:, -1])


def test_each_layer_uses_its_own_style():
    torch.manual_seed(0)
    generator, _ = pair(noise=False)
    styles, used = torch.randn(1, generator.num_styles, 24), []
    for layer in (*generator.synthesis.layers, *generator.synthesis.to_rgb):
        layer.register_forward_hook(lambda layer, given, made: used.append(given[1]))
    generator.synthesis(styles)
    indices = [[i for i in range(6) if torch.equal(style, styles[:, i])] for style in used]
    assert indices == [[0], [1], [1], [2], [3], [3], [4], [5]]  # layer, image; layer, layer, image; ...


def test_logits_of_a_conditional_discriminator_are_the_scaled_product_with_the_mapped_class():
    torch.manual_seed(0)
    _, discriminator = pair(3)
    samples, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 2, 1, 2])
    features = []
    discriminator.head.register_forward_hook(lambda layer, given, made: features.append(made))
    logits = discriminator(samples, labels)
    mapped = discriminator.mapping(None, torch.arange(3))
    for index, label in enumerate(labels):
        expected = features[0][index] @ mapped[label] / math.sqrt(16)
        torch.testing.assert_close(logits[index, 0], expected)


def test_shortcuts_can_be_left_out():
    torch.manual_seed(0)
    residual = StyleGAN2Discriminator(PIXELS, widths=(4, 6, 8))
    plain = StyleGAN2Discriminator(PIXELS, widths=(4, 6, 8), residual=False)
    assert count(residual) - count(plain) == 4 * 6 + 6 * 8
    maps = torch.randn(2, 4, 16, 16)
    block, other = residual.blocks[0], plain.blocks[0]
    other.load_state_dict(block.state_dict(), strict=False)
    shortcut = F.conv2d(block.filter.downsample(maps), block.shortcut.weight / 2)  # 1 / sqrt(fan-in of 4)
    torch.testing.assert_close(block(maps), (other(maps) + shortcut) / 2**0.5)
