"""The way back of the feedback through networks of the zoo."""

from __future__ import annotations

from functools import partial

from shared.gradient_flow import GradientNorms

from litgan.zoo import ResNetDiscriminator, ResNetGenerator, StyleGAN2Discriminator, StyleGAN2Generator

IMAGE = (3, 16, 16)


class TestWayBack(GradientNorms):
    pairs = {
        "resnet": (
            partial(ResNetGenerator, IMAGE, widths=[8, 8]), partial(ResNetDiscriminator, IMAGE, widths=[8, 8])
        ),
        "stylegan2": (
            partial(StyleGAN2Generator, IMAGE, widths=[8, 8, 8], noise=False),  # one sample at a time
            partial(StyleGAN2Discriminator, IMAGE, widths=[8, 8, 8], group_size=1),
        ),
    }  # fmt: skip
