"""The networks of translation keep the contract of networks."""

from functools import partial

from contract import COMPILED, Case, Contract

from litgan.networks import FiniteScalarQuantizer, PatchDiscriminator, VectorQuantizer
from litgan.translation import MultiScale, ResNetTranslator, SuperResolver, VQAutoencoder

IMAGE = (3, 16, 16)
LINEAR = {"test_samples_are_bounded": "the paper's generator ends linearly"}
CODES = LINEAR | {"test_bfloat16_autocast_changes_little": "a vector between two codes may get the other one"}
NAMES = dict.fromkeys(
    ("test_input_that_does_not_fit_is_named", "test_a_condition_that_does_not_fit_is_named"),
    "its discriminators name themselves",
)
PATCHES = [partial(PatchDiscriminator, widths=widths, initialization="he") for widths in ((8, 12), (12, 8))]


def same(shape):
    return (2, *shape[1:])


def half(shape):
    return (2, *(side // 2 for side in shape[1:]))


def resnet(sizes=None, exempt=None, **options):
    build = partial(ResNetTranslator, widths=(8, 12, 16), blocks=2, initialization="he", **options)
    return Case(build, IMAGE, sizes or {}, image=same, exempt=exempt or {})


def autoencoder(quantizer, sizes=None, frozen=(), exempt=None, **options):
    build = partial(VQAutoencoder, quantizer=quantizer, widths=(8, 12), blocks=1, **options)
    return Case(build, IMAGE, sizes or {}, frozen=frozen, image=same, exempt=CODES | (exempt or {}))


def scales(sizes=None, image=None, exempt=None, **options):
    build = partial(MultiScale, discriminators=PATCHES, **options)
    return Case(build, IMAGE, sizes or {}, image=image, exempt=NAMES | (exempt or {}))


class TestContract(Contract):
    generators = {
        "resnet": resnet({(1, 5, 8): {}, (2, 21, 13): {"widths": (4, 4)}}),
        "resnet-latents": resnet(latent_dim=3, exempt=COMPILED),
        "super": Case(
            partial(SuperResolver, width=8, blocks=2), IMAGE,
            {(1, 10, 14): {}, (4, 32, 64): {"residual_scale": 0.1}}, image=half, exempt=LINEAR,
        ),
        "vq": autoencoder(
            partial(VectorQuantizer, 8, 4), {(1, 8, 8): {"widths": (4, 4, 4)}, (2, 21, 13): {}}
        ),
        "vq-gradient": autoencoder(
            partial(VectorQuantizer, 8, 4, learning="gradient"), frozen=("quantizer",), exempt=COMPILED
        ),
        "fsq": autoencoder(partial(FiniteScalarQuantizer, (5, 4)), attention=False),
    }  # fmt: skip
    discriminators = {
        "scales": scales({(1, 12, 31): {"discriminators": PATCHES[:1]}, (4, 21, 30): {}}),
        "scales-image": scales(image=same, exempt=COMPILED),
        "scales-whole": scales(image=half, exempt=COMPILED, halve=False),
    }
    refusals = [
        (lambda: ResNetTranslator(IMAGE, 0), "ResNetTranslator makes images of images"),
        (lambda: ResNetTranslator((3, 4, 4), (3, 4, 4)), "3 widths needs images of 5 pixels"),
        (lambda: SuperResolver(IMAGE, (3, 8, 4)), r"of 2 times the sides.*\(3, 8, 4\)"),
        (lambda: SuperResolver(IMAGE, (3, 5, 5)), r"of 3 times the sides.*\(3, 5, 5\)"),
        (lambda: SuperResolver(IMAGE, (3, 8, 8), blocks=0), "0 blocks"),
        (lambda: VQAutoencoder(IMAGE, (3, 8, 8)), "VQAutoencoder makes images of images .* same size"),
        (lambda: VQAutoencoder(IMAGE, IMAGE, blocks=0), "0 blocks"),
        (lambda: MultiScale(IMAGE, discriminators=()), "no discriminators"),
    ]
