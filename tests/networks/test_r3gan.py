import itertools
from pathlib import Path

import pytest
import torch
import yaml
from contract import RESOLUTIONS, count, growth, record, rms
from torch import nn
from torch.nn import functional as F

from litgan.networks import R3GANDiscriminator, R3GANGenerator
from litgan.networks.r3gan import (
    DiscriminativeBasis,
    GenerativeBasis,
    ResidualBlock,
    downsample,
    init_residual_weights,
    upsample,
)

SLOPE = 0.2
CONFIGS = Path(__file__).parents[2] / "configs"


def pair(classes=0, resolution=16, widths=None, awake=False):
    """A generator and a mirrored discriminator; `awake` draws the last layers of the residual branches."""
    stages = resolution.bit_length() - 2
    widths = list(widths or [16] * stages)
    options = [
        {"widths": widths[::step], "cardinalities": [4] * stages, "blocks": [2] * stages} for step in (1, -1)
    ]
    shape = (3, resolution, resolution)
    networks = R3GANGenerator(shape, classes, **options[0]), R3GANDiscriminator(shape, classes, **options[1])
    for block in itertools.chain(*map(blocks, networks)):
        if awake:
            nn.init.normal_(block.project.weight, 0.0, block.project.in_channels**-0.5)
    return networks


def blocks(network):
    return [layer for layer in network.modules() if isinstance(layer, ResidualBlock)]


def inputs(count, classes):
    return torch.randn(count, 64), torch.arange(count) % classes if classes else None


@pytest.mark.parametrize(
    ("resolution", "classes", "narrow", "generator", "discriminator", "recipe"),
    [
        (32, 10, [], 20_781_952, 21_280_512, "cifar10_r3gan_conditional"),  # as the paper has it
        (32, 0, [], 20_732_160, 20_683_776, "cifar10_r3gan"),
        (64, 0, [384], 22_429_824, 22_381_440, "ffhq64_r3gan"),
        (256, 0, [384, 192, 96], 23_057_952, 23_009_568, None),  # FFHQ-256
    ],
)
def test_parameters_at_the_published_configurations(
    resolution, classes, narrow, generator, discriminator, recipe
):
    """Widths, two blocks a stage and groups of 16 channels are those of the authors' presets (train.py).

    The counts follow from them: 2 C * C + 2 C * 16 * 9 + C * 2 C weights and 2 * 2 C biases a block; a basis;
    1 x 1 convolutions between unequal widths and at the image. The authors' Networks.py has the same layers.
    """
    widths = [768, 768, 768, 768, *narrow]
    cardinalities = [width // 8 for width in widths]
    options = {"widths": widths, "cardinalities": cardinalities, "blocks": [2] * len(widths)}
    ways = [(options, {name: numbers[::-1] for name, numbers in options.items()})]
    ways += [({}, {})] if resolution == 32 else []  # the defaults
    if recipe:
        model = yaml.safe_load((CONFIGS / f"{recipe}.yaml").read_text())["model"]
        ways += [(model["generator"]["init_args"], model["discriminator"]["init_args"])]
    shape = (3, resolution, resolution)
    for of_generator, of_discriminator in ways:
        with torch.device("meta"):
            counts = (
                count(R3GANGenerator(shape, classes, **of_generator)),
                count(R3GANDiscriminator(shape, classes, **of_discriminator)),
            )
        assert counts == (generator, discriminator)
    backbone = sum(2 * (4 * c * c + 2 * c * 16 * 9 + 4 * c) for c in widths) + 16 * 768
    backbone += sum(a * b for a, b in itertools.pairwise(widths) if a != b) + 3 * widths[-1]
    ends = (64 + 64 * bool(classes)) * 768 + 64 * classes, 768 * (768 + classes if classes else 1)
    assert counts == (backbone + ends[0], backbone + ends[1])


def test_residual_blocks_are_identities_at_the_start():
    networks = pair()
    assert [len(blocks(network)) for network in networks] == [6, 6]
    maps = torch.randn(2, 16, 8, 8)
    for block in itertools.chain(*map(blocks, networks)):
        assert torch.equal(block(maps), maps)
        block(maps).square().sum().backward()
        assert block.project.weight.grad.any()  # but not for long


@pytest.mark.parametrize("depth", [1, 4, 16])
def test_a_branch_would_add_one_part_in_the_number_of_blocks(depth):
    """Fixup: two layers of gain L^(-1/4) each, so that L branches together add as much as came in."""
    torch.manual_seed(0)
    network = nn.Sequential(*(ResidualBlock(64, 8, 2) for _ in range(depth)))
    init_residual_weights(network)
    nn.init.normal_(network[0].project.weight, 0.0, 128**-0.5)
    maps = torch.randn(64, 64, 16, 16)
    interior = (network[0](maps) - maps)[:, :, 1:-1, 1:-1]  # the border sees zeros
    assert interior.square().mean().item() == pytest.approx(1 / depth, rel=0.2)
    assert not network[0].expand.bias.any() and not network[0].mix.bias.any()


@pytest.mark.parametrize("awake", [False, True])
@pytest.mark.parametrize("classes", [0, 10])
@RESOLUTIONS
def test_signals_keep_their_size_at_the_start(awake, classes, resolution):
    """Maps after each stage have rms 0.1 to 2.5; interpolation takes a part of it, blocks take none.

    Each upsampling about halves the norm of the feedback, and each downsampling that of the gradient in the
    image, as averages of four pixels do: 0.2 to 0.85 of it is left. `awake`, with the branches' last layers
    drawn as all others, is the size that the blocks can grow to.
    """
    torch.manual_seed(0)
    generator, discriminator = pair(classes, resolution, awake=awake)
    latents, labels = inputs(2, classes)
    maps = record(
        (*generator.stages, *discriminator.stages),
        lambda: discriminator(generator(latents, labels), labels).sum().backward(),
    )
    assert all(0.1 < rms(each) < 2.5 for each in maps)
    stages = len(generator.stages)
    for signal, feedback in growth(maps[:stages]):
        assert 0.5 < signal < 1.4 and 0.2 < feedback < 0.85
    for signal, feedback in growth(maps[stages:]):
        assert 0.5 < signal < 1.4 and 0.2 < 1 / feedback < 0.85


@pytest.mark.parametrize("precision", ["bfloat16", "channels_last"])
def test_maps_keep_their_layout_and_their_precision(precision):
    """No layer changes them behind the back of the next, which would cost as much as it saves."""
    networks = [network.to(memory_format=torch.channels_last) for network in pair(3, awake=True)]
    leaves = [layer for network in networks for layer in network.modules() if not list(layer.children())]
    latents, labels = inputs(8, 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        maps = record(leaves, lambda: networks[1](networks[0](latents, labels), labels))
    maps = [each for each in maps if each.ndim == 4]
    assert {each.dtype for each in maps} == {torch.bfloat16 if precision == "bfloat16" else torch.float32}
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)
    assert not any("kernel" in name for network in networks for name in network.state_dict())  # no weight


def test_resampling_is_bilinear():
    torch.manual_seed(0)
    small, large = torch.randn(2, 3, 8, 8).double(), torch.randn(2, 3, 16, 16).double()
    up, down = upsample(3, 3).double(), downsample(3, 3).double()
    bilinear = F.interpolate(small, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(up(small)[:, :, 1:-1, 1:-1], bilinear[:, :, 1:-1, 1:-1])
    antialiased = F.interpolate(large, scale_factor=0.5, mode="bilinear", antialias=True)
    torch.testing.assert_close(down(large)[:, :, 1:-1, 1:-1], antialiased[:, :, 1:-1, 1:-1])
    torch.testing.assert_close((up(small) * large).sum(), 4 * (small * down(large)).sum())
    assert up(torch.ones(1, 3, 2, 2).double())[0, 0, 0, 0].item() == (3 / 4) ** 2  # zero beyond the border


def test_transitions_widen_where_resampling_is_cheapest():
    torch.manual_seed(0)
    maps, large = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 8, 8)
    up, down = upsample(3, 5), downsample(3, 5)
    assert up[0].kernel_size == down[-1].kernel_size == (1, 1)
    torch.testing.assert_close(up(maps), up[0](up[1:](maps)))  # they commute
    torch.testing.assert_close(down(large), down[:-1](down[-1](large)))
    assert count(upsample(3, 3)) == count(downsample(3, 3)) == 0


def test_blocks_compute_what_the_paper_draws():
    torch.manual_seed(0)
    block = ResidualBlock(4, 2, 3).double()
    for bias in (block.expand.bias, block.mix.bias):
        nn.init.normal_(bias)
    maps = torch.randn(2, 4, 8, 8).double()
    hidden = F.leaky_relu(torch.einsum("oi,bihw->bohw", block.expand.weight[..., 0, 0], maps).add(
        block.expand.bias[:, None, None]), SLOPE)  # fmt: skip
    halves = [
        F.conv2d(half, weight, bias, padding=1)
        for half, weight, bias in zip(
            hidden.chunk(2, dim=1), block.mix.weight.chunk(2), block.mix.bias.chunk(2), strict=True
        )
    ]
    hidden = F.leaky_relu(torch.cat(halves, dim=1), SLOPE)
    assert hidden.shape[1] == 12
    branch = torch.einsum("oi,bihw->bohw", block.project.weight[..., 0, 0], hidden)
    torch.testing.assert_close(block(maps), maps + branch)


def test_bases_are_linear_maps_from_and_to_vectors():
    torch.manual_seed(0)
    made, read = GenerativeBasis(6, 5), DiscriminativeBasis(5, 2)
    vectors = torch.randn(3, 6)
    expected = torch.einsum("chw,ci,bi->bchw", made.basis[0], made.linear.weight, vectors)
    torch.testing.assert_close(made(vectors), expected)
    maps = torch.randn(3, 5, 4, 4)
    expected = torch.einsum("oc,chw,bchw->bo", read.linear.weight, read.basis[0], maps)
    torch.testing.assert_close(read(maps), expected)
    wide = GenerativeBasis(6, 4096), DiscriminativeBasis(4096, 1)
    assert [basis.basis.std().item() for basis in wide] == pytest.approx([1, 1 / 4], rel=0.02)


def test_labels_join_the_latents_and_project_the_vectors():
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 2, 0])
    generator, discriminator = pair(3)
    recorded: list[tuple[torch.Tensor, torch.Tensor]] = []
    for network in (generator, discriminator):
        network.basis.register_forward_hook(lambda basis, given, made: recorded.append((given[0], made)))
    latents, samples = torch.randn(4, 64), torch.randn(4, 3, 16, 16)
    generator(latents, labels)
    assert torch.equal(recorded[0][0], torch.cat([latents, generator.embed.weight[labels]], dim=1))
    logits = discriminator(samples, labels)
    projected = recorded[-1][1] @ discriminator.embed.weight.T
    torch.testing.assert_close(logits, projected.gather(1, labels[:, None]))


def test_embeddings_start_as_those_of_one_hot_labels():
    generator, discriminator = pair(100, widths=[256, 16, 16])
    assert generator.embed.weight.std().item() == pytest.approx(100**-0.5, rel=0.05)
    assert discriminator.embed.weight.std().item() == pytest.approx(25600**-0.5, rel=0.05)
