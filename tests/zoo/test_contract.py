"""Residual networks, StyleGAN2 and the projected discriminator satisfy the contract of networks."""

from functools import partial

from contract import COMPILED, Case, Contract

from litgan.zoo import (
    ProjectedDiscriminator,
    ResNetDiscriminator,
    ResNetGenerator,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)

IMAGE = (3, 16, 16)
HALVINGS = {
    (channels, side, side): {"widths": [8] * doublings, "latent_dim": 2 * doublings + 2}
    for channels, side, doublings in ((1, 32, 3), (4, 128, 5), (3, 256, 6))
}
HALVED = {shape: {"widths": options["widths"]} for shape, options in HALVINGS.items()}
RESOLUTIONS = {
    (channels, side, side): {"widths": [8] * count}
    for channels, side, count in ((1, 4, 1), (1, 32, 4), (4, 128, 6), (3, 256, 7))
}
SAGAN = {"attention": 8, "initialization": "orthogonal"}
BIGGAN = {
    "conditioning": "shared", "embedding_dim": 8, "hierarchical": True, "spectral_norm": True, **SAGAN
}  # fmt: skip
SILENT = {"silent": ("gamma", "noise_strength", "bias.weight")}  # the last: of each class
STYLES = {"latent_dim": 24, "style_dim": 24, "mapping_layers": 2, "widths": (16, 16, 16)}
PENALTIES = "test_gradient_penalties_reach_every_sample_and_weight"
LINEAR = {"test_samples_are_bounded": "the paper's generator ends linearly"}


def resnet(sizes=None, spectral=0, exempt=None, **options):
    build = partial(ResNetGenerator, latent_dim=12, widths=(32, 16), **options)
    return Case(build, IMAGE, sizes or {}, spectral=spectral, exempt=exempt or {}, **SILENT)


def stylegan2(**options):
    return Case(partial(StyleGAN2Generator, **STYLES | options), IMAGE, RESOLUTIONS, exempt=LINEAR, **SILENT)


def projected(shape, spectral, exempt=None, **options):
    frozen = ("backbone", "channel_mixing", "scale_mixing")
    build = partial(ProjectedDiscriminator, **options)
    sizes = {(1, 64, 64): {}, (3, 64, 64): {}}
    return Case(build, shape, sizes, frozen=frozen, spectral=spectral, exempt=exempt or {})


class TestContract(Contract):
    generators = {
        "sngan": resnet(HALVINGS),
        "sngan-group": resnet(exempt=COMPILED, norm="group"),
        "biggan": resnet(HALVINGS, 20, **BIGGAN),
        "biggan-pixel": resnet(None, 20, COMPILED, norm="pixel", **BIGGAN),
        "biggan-none": resnet(None, 20, COMPILED, norm="none", **BIGGAN),
        "stylegan2": stylegan2(style_mixing=0.5),
        "stylegan2-grouped": stylegan2(grouped=True),
    }
    discriminators = {
        "sngan": Case(
            partial(ResNetDiscriminator, widths=(8, 16), flat_widths=(16,)), IMAGE, HALVED, spectral=10
        ),
        "biggan": Case(
            partial(ResNetDiscriminator, widths=(8, 16), flat_widths=(16,), wide=True, **SAGAN),
            IMAGE, HALVED, spectral=14, **SILENT,
        ),
        "stylegan2": Case(
            partial(StyleGAN2Discriminator, widths=(16, 16, 16), mapping_layers=2), IMAGE, RESOLUTIONS
        ),
        "projected-fashion": projected((1, 32, 32), 7, widths=(8, 8)),
        "projected-digits": projected((3, 64, 64), 8, backbone="digits", widths=(8, 8), exempt=COMPILED),
        "projected-torchvision": projected(
            (3, 64, 64), 10, backbone="torchvision:mobilenet_v3_small", pretrained=False, depths=3,
            widths=(8, 8, 16),
            exempt=COMPILED | {PENALTIES: "the backbone's hard sigmoids cannot be differentiated twice"},
        ),
    }  # fmt: skip
    refusals = [
        (lambda: ResNetGenerator((3, 48, 48)), "ResNetGenerator needs square .* power of two"),
        (lambda: ResNetDiscriminator((3, 32, 64)), "square"),
        (lambda: ResNetGenerator((1, 8, 8)), "give 1 to 2"),
        (lambda: ResNetDiscriminator((1, 16, 16), widths=()), "widths has 0"),
        (lambda: ResNetDiscriminator((1, 16, 16), widths=(8,) * 4), "give 1 to 3"),
        (lambda: ResNetDiscriminator((1, 16, 16), flat_widths=(8, -1)), r"widths \[8, -1\]"),
        (lambda: ResNetGenerator((1, 32, 32), norm="layer"), "no norm 'layer'"),
        (lambda: ResNetGenerator((1, 32, 32), conditioning="film"), "no conditioning 'film'"),
        (lambda: ResNetGenerator((1, 32, 32), initialization="xavier"), "no initialization 'xavier'"),
        (lambda: ResNetGenerator((1, 32, 32), hierarchical=True, latent_dim=30), "that 4 divides"),
        (lambda: ResNetGenerator((1, 32, 32), 2, hierarchical=True), "set conditioning to shared"),
        (lambda: ResNetGenerator((1, 32, 32), attention=4), r"one of \[8, 16, 32\]"),
        (lambda: ResNetDiscriminator((1, 32, 32), attention=32), r"one of \[8, 16\]"),
        (lambda: StyleGAN2Generator((3, 48, 48)), "StyleGAN2Generator needs square .* power of two"),
        (lambda: StyleGAN2Discriminator((3, 32, 64)), "square"),
        (lambda: StyleGAN2Generator((1, 64, 64)), "widths has 4 entries: give 5"),
        (lambda: StyleGAN2Discriminator((1, 16, 16)), "widths has 4 entries: give 3"),
        (lambda: StyleGAN2Discriminator((1, 16, 16), widths=(8, 0, 8)), r"widths \[8, 0, 8\]"),
        (lambda: StyleGAN2Generator((1, 32, 32), mapping_layers=0), "mapping_layers is 0"),
        (lambda: StyleGAN2Generator((1, 32, 32), latent_dim=0), "latent_dim is 0: give at least 1"),
        (lambda: StyleGAN2Generator((1, 32, 32), style_mixing=1.5), "share from 0 to 1"),
        (lambda: StyleGAN2Discriminator((1, 32, 32), group_size=0), "group_size is 0: give at least 1"),
        (lambda: StyleGAN2Discriminator((1, 32, 32), std_channels=3), "divisor of 512"),
        (lambda: ProjectedDiscriminator((1, 8, 8), backbone="resnet"), "no backbone 'resnet': give fashion"),
        (lambda: ProjectedDiscriminator((1, 32, 32), backbone="torchvision:no"), "has no network 'no'"),
        (lambda: ProjectedDiscriminator((1, 32, 32), depths=9), "give 1 to"),
        (lambda: ProjectedDiscriminator((1, 32, 32), widths=(8,)), "a width for each"),
    ]
