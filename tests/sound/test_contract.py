"""The networks of sound keep the contract of networks."""

from functools import partial

from contract import Case, Contract

from litgan.sound import (
    HiFiGANDiscriminator,
    HiFiGANGenerator,
    ISTFTGenerator,
    SpectrogramDiscriminator,
    WaveGANDiscriminator,
    WaveGANGenerator,
)

SHAPE, SCALE_WIDTHS = (1, 256), (4,) * 7
LENGTHS = {
    (1, 4_096): {"widths": (2,) * 4},
    (2, 16_384): {"widths": (2,) * 5},
    (1, 65_536): {"widths": (2,) * 6},
}


class TestContract(Contract):
    generators = {
        "wavegan": Case(partial(WaveGANGenerator, latent_dim=6, widths=(8, 6, 4)), SHAPE, LENGTHS),
        "istft": Case(
            partial(ISTFTGenerator, latent_dim=6, n_fft=32, hop=16, widths=(8, 6)), SHAPE, {(2, 96): {}}
        ),
    }
    discriminators = {
        "wavegan": Case(partial(WaveGANDiscriminator, widths=(4, 6, 8)), SHAPE, LENGTHS),
        "hifigan": Case(
            partial(
                HiFiGANDiscriminator,
                period_widths=(4, 6),
                scale_widths=SCALE_WIDTHS,
                periods=(2, 3),
                scales=2,
            ),
            SHAPE,
            {(1, 1_000): {}},
            spectral=8,
        ),
        "spectrograms": Case(
            partial(SpectrogramDiscriminator, resolutions=((64, 16, 8), (32, 8, 4)), widths=(4, 6)),
            SHAPE,
            {(2, 1_000): {}},
        ),
    }
    refusals = [
        (
            lambda: WaveGANGenerator((1, 100), widths=(8, 8)),
            r"WaveGANGenerator needs sounds \[C, T\] whose le",
        ),
        (lambda: WaveGANGenerator((1, 8, 8)), r"samples' shape is \[1, 8, 8\]"),
        (lambda: WaveGANDiscriminator(SHAPE, widths=()), "at least 1"),
        (lambda: WaveGANDiscriminator(SHAPE, widths=(4, 0)), r"widths \[4, 0\]"),
        (
            lambda: WaveGANDiscriminator(SHAPE, widths=(4, 6, 8), phase_shuffle=16),
            "cannot shuffle phases by 16: give 0 to 15",
        ),
        (lambda: HiFiGANDiscriminator((2, 256)), r"needs sounds \[1, T\] long enough"),
        (lambda: HiFiGANDiscriminator((1, 16)), r"long enough for periods \[2, 3, 5, 7, 11\] and 3 scales"),
        (lambda: HiFiGANDiscriminator(SHAPE, periods=(), scales=0), r"periods \[\] and 0 scales"),
        (lambda: HiFiGANDiscriminator(SHAPE, scale_widths=(4,)), r"scale_widths \[4\]: .* 7 of the second"),
        (lambda: HiFiGANGenerator((1, 512), (80, 4)), r"256 samples of each frame .*\[1, 512\].*\(80, 4\)"),
        (lambda: HiFiGANGenerator((1, 512), 10), "condition is 10"),
        (lambda: HiFiGANGenerator((1, 1_024), (80, 4), channels=4), "channels 4"),
        (lambda: HiFiGANGenerator((1, 1_024), (80, 4), kernels=(3, 4, 5)), "odd"),
    ]
