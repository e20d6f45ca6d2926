"""MLPs, DCGAN, R3GAN and pix2pix keep the contract of networks."""

from functools import partial

from contract import COMPILED, Case, Contract

from litgan.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    PatchDiscriminator,
    R3GANDiscriminator,
    R3GANGenerator,
    UNetGenerator,
)

IMAGE = (3, 16, 16)
SHAPES = {(1, 8, 8): {}, (3, 16): {}}
SIDES = {
    (1, 8, 8): {"widths": (4,)},
    (4, 8, 8): {"widths": (4, 4)},
    (3, 32, 32): {"widths": (8, 4, 4)},
    (1, 256, 256): {"widths": (4, 4, 4, 2, 2, 2)},
}
STAGES = {
    (channels, side, side): {"widths": [4] * stages, "cardinalities": [2] * stages, "blocks": [1] * stages}
    for channels, side, stages in ((3, 4, 1), (1, 32, 4), (4, 128, 6), (3, 256, 7))
}
ONE = {"widths": (8,), "cardinalities": (4,), "blocks": (1,)}


def dcgan_generator(sizes=SIDES, **options):
    build = partial(DCGANGenerator, latent_dim=6, widths=(32, 16), initialization="he", **options)
    return Case(build, IMAGE, sizes)


def dcgan_discriminator(sizes=SIDES, spectral=0, **options):
    build = partial(
        DCGANDiscriminator, widths=(16, 32), initialization="he", spectral_norm=spectral > 0, **options
    )
    return Case(build, IMAGE, sizes, spectral=spectral)


def unet(sizes=None, exempt=None, **options):
    build = partial(UNetGenerator, widths=(8, 12, 16), initialization="he", **options)
    return Case(build, IMAGE, sizes or {}, image=lambda shape: (2, *shape[1:]), exempt=exempt or {})


def patch(sizes=None, image=None, exempt=None, **options):
    build = partial(PatchDiscriminator, widths=(8, 12, 16), initialization="he", **options)
    return Case(build, IMAGE, sizes or {}, image=image, exempt=exempt or {})


def r3gan(kind, widths):
    return partial(kind, widths=widths, cardinalities=(4, 4, 4), blocks=(2, 2, 2))


class TestContract(Contract):
    generators = {
        "mlp": Case(partial(MLPGenerator, latent_dim=7, widths=(16, 12)), (2,), SHAPES),
        "dcgan-batch": dcgan_generator(norm="batch", upsample="transposed"),
        "dcgan-group": dcgan_generator({}, norm="group", upsample="nearest"),
        "dcgan-pixel": dcgan_generator({}, norm="pixel", upsample="transposed"),
        "dcgan-none": dcgan_generator({}, norm="none", upsample="nearest"),
        "dcgan-concatenation": dcgan_generator({}, norm="batch", conditioning="concatenation"),
        "r3gan": Case(
            r3gan(R3GANGenerator, (16, 12, 8)), IMAGE, STAGES, silent=("project",),
            exempt={"test_samples_are_bounded": "the paper's generator ends linearly"},
        ),
        "unet": unet(sizes={(1, 8, 8): {"widths": (4,)}, (2, 21, 13): {}, (1, 64, 40): {"widths": (4,) * 5}}),
        "unet-batch": unet(norm="batch", exempt=COMPILED),
        "unet-none": unet(norm="none", latent_dim=4, exempt=COMPILED),
    }  # fmt: skip
    discriminators = {
        "mlp": Case(partial(MLPDiscriminator, widths=(16, 12)), (2,), SHAPES),
        "mlp-spectral": Case(
            partial(MLPDiscriminator, widths=(16, 12), spectral_norm=True), (2,), spectral=4, exempt=COMPILED
        ),
        "dcgan-batch": dcgan_discriminator(norm="batch"),
        "dcgan-group": dcgan_discriminator({}, norm="group"),
        "dcgan-pixel": dcgan_discriminator({}, norm="pixel"),
        "dcgan-none": dcgan_discriminator({}, norm="none"),
        "dcgan-spectral": dcgan_discriminator({}, spectral=4),
        "r3gan": Case(r3gan(R3GANDiscriminator, (8, 12, 16)), IMAGE, STAGES, silent=("project",)),
        "patch": patch(sizes={(1, 6, 9): {"widths": (4, 4)}, (4, 30, 25): {"widths": (4,) * 4}}),
        "patch-batch": patch(norm="batch", exempt=COMPILED),
        "patch-none": patch(norm="none", exempt=COMPILED),
        "patch-image": patch(image=lambda shape: (2, *shape[1:]), exempt=COMPILED),
        "patch-smaller-image": patch(image=lambda shape: (2, 4, 4), exempt=COMPILED),
    }
    refusals = [
        (lambda: MLPGenerator((2,), widths=(16, 0)), r"MLPGenerator has widths \[16, 0\]"),
        (lambda: MLPGenerator((2,), output="sigmoid"), "no output 'sigmoid'"),
        (lambda: MLPDiscriminator((2,), activation="gelu"), "no activation 'gelu'"),
        (lambda: DCGANGenerator((3, 48, 48)), "DCGANGenerator needs square .* power of two"),
        (lambda: DCGANDiscriminator((3, 32, 64)), "square"),
        (lambda: DCGANGenerator((2,)), r"shape is \[2\]"),
        (lambda: DCGANGenerator((1, 8, 8)), "give 1 to 2"),
        (lambda: DCGANDiscriminator((1, 16, 16), widths=()), "widths has 0"),
        (lambda: DCGANDiscriminator((1, 16, 16), widths=(8, -1)), r"widths \[8, -1\]"),
        (lambda: DCGANGenerator((1, 32, 32), norm="layer"), "no norm 'layer'"),
        (lambda: DCGANGenerator((1, 32, 32), upsample="bilinear"), "no upsample 'bilinear'"),
        (lambda: DCGANGenerator((1, 32, 32), conditioning="film"), "no conditioning 'film'"),
        (lambda: DCGANGenerator((1, 32, 32), initialization="xavier"), "no initialization 'xavier'"),
        (lambda: R3GANGenerator((3, 48, 48)), "R3GANGenerator needs square .* power of two"),
        (lambda: R3GANDiscriminator((3, 32, 64)), "square"),
        (lambda: R3GANGenerator((2,)), r"shape is \[2\]"),
        (lambda: R3GANGenerator((3, 64, 64)), "each of the 5 resolutions from 4 to 64"),
        (lambda: R3GANDiscriminator((3, 32, 32), widths=()), "widths has 0 entries: give 4"),
        (lambda: R3GANDiscriminator((3, 4, 4), **ONE | {"widths": (-8,)}), r"widths \[-8\]"),
        (lambda: R3GANGenerator((3, 4, 4), **ONE | {"blocks": (1, 1)}), r"blocks \[1, 1\]: give one"),
        (lambda: R3GANGenerator((3, 4, 4), **ONE | {"blocks": (0,)}), r"blocks \[0\]: give one"),
        (lambda: R3GANDiscriminator((3, 32, 32), cardinalities=(96,)), r"cardinalities \[96\]"),
        (lambda: R3GANGenerator((3, 4, 4), **ONE | {"cardinalities": (3,)}), r"cut 2 \* 8 channels into 3"),
        (lambda: R3GANDiscriminator((3, 4, 4), **ONE | {"cardinalities": (5,)}), "into 5 groups"),
        (lambda: R3GANGenerator((3, 4, 4), expansion=0, **ONE), "expansion 0"),
        (lambda: UNetGenerator(IMAGE, 10), "UNetGenerator makes images of images .* the condition is 10"),
        (lambda: UNetGenerator(IMAGE, (1, 16, 8)), r"of the same size.*\(1, 16, 8\)"),
        (lambda: UNetGenerator((2,), (2,)), r"shape is \[2\]"),
        (lambda: UNetGenerator(IMAGE, IMAGE, widths=()), "UNetGenerator has 0 widths"),
        (lambda: UNetGenerator(IMAGE, IMAGE, norm="layer"), "no norm 'layer'"),
        (lambda: PatchDiscriminator(IMAGE), "4 widths needs .* of 24 pixels .* fewer widths"),
        (lambda: PatchDiscriminator(IMAGE, widths=(4,)), "PatchDiscriminator has 1 widths: give at least 2"),
        (lambda: PatchDiscriminator(IMAGE, (1, 64), widths=(4, 4)), r"PatchDiscriminator .* \[1, 64\]"),
    ]
