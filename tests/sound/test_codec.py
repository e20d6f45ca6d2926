"""The codec: any length, codes that are all there is of a wave, and what each stage adds."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from contract import refuses

from litgan.networks.quantizers import FiniteScalarQuantizer, VectorQuantizer
from litgan.sound import WaveCodec
from litgan.sound.codec import ResidualQuantizer

SHAPE, LATENTS = (1, 240), torch.empty(2, 0)
SMALL: dict[str, Any] = {
    "quantizer": partial(VectorQuantizer, 16, 4), "stages": 3, "strides": (2, 3), "widths": (4, 6, 8),
}  # fmt: skip


def codec(**options: Any) -> WaveCodec:
    torch.manual_seed(0)
    return WaveCodec(SHAPE, SHAPE, **(SMALL | options))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 4


def trained(**options: Any) -> WaveCodec:
    """Its codebooks began as vectors of a batch."""
    made = codec(**options)
    for seed in range(3):
        made(LATENTS, noise(2, *SHAPE, seed=seed))
    return made.eval()


@pytest.mark.parametrize("length", [1, 239, 240, 1_001])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_length_and_number_of_channels(length: int, channels: int) -> None:
    made = WaveCodec((channels, 240), (channels, 240), **SMALL)
    waves = made(LATENTS, noise(2, channels, length))
    frames = -(-length // 6)
    assert waves.shape == (2, channels, length) and waves.abs().max() < 1
    assert made.codes.shape == (2, 3, frames) and made.codes.dtype == torch.int64
    assert made.decode(made.codes).shape == (2, channels, 6 * frames)
    assert made.auxiliary_loss.shape == (2,) and made.perplexity.shape == (3,)


def test_the_rate_is_that_of_soundstream() -> None:
    """24 kHz at 6 kbit/s: 8 codes of 10 bits for each of 75 frames a second."""
    with torch.device("meta"):
        made = WaveCodec((1, 24_000), (1, 24_000), quantizer=partial(VectorQuantizer, 1_024, 128))
    assert 24_000 * made.bits_per_sample == 6_000
    assert made.decode(torch.empty(1, 8, 75, dtype=torch.long, device="meta")).shape == (1, 1, 24_000)


def test_the_codes_are_all_there_is_of_a_wave() -> None:
    made, waves = trained(), noise(2, *SHAPE, seed=9)
    codes = made.encode(waves)
    torch.testing.assert_close(made.decode(codes), made(LATENTS, waves))
    assert torch.equal(made.encode(waves), codes) and torch.equal(copy.deepcopy(made).encode(waves), codes)
    assert (codes >= 0).all() and (codes < 16).all()


def test_each_stage_comes_nearer_and_the_first_ones_alone_can_be_heard() -> None:
    """Codes of the first stages are those of a codec that has no more of them."""
    quantizer = ResidualQuantizer(partial(VectorQuantizer, 16, 4), 3)
    vectors = noise(8, 4, 100)
    for _ in range(20):
        quantizer(vectors)
    quantizer.eval()
    quantized, codes, _ = quantizer(vectors)
    errors = [(vectors - quantizer.lookup(codes[:, :k])).square().mean().item() for k in (1, 2, 3)]
    assert errors[0] > 1.3 * errors[1] > 1.3**2 * errors[2]
    torch.testing.assert_close(quantizer.lookup(codes), quantized)
    rest = vectors
    for stage, chosen in zip(quantizer.stages, codes.unbind(1), strict=True):
        distances = (rest[:, None] - stage.codebook[None, :, :, None]).square().sum(2)
        assert torch.equal(distances.argmin(1), chosen), "the nearest row to what is left"
        rest = rest - stage.lookup(chosen)
    torch.testing.assert_close(vectors - rest, quantized)


def test_the_gradient_passes_straight_through_once() -> None:
    quantizer = ResidualQuantizer(partial(VectorQuantizer, 16, 4), 3).eval()
    vectors, weights = noise(2, 4, 5).requires_grad_(), noise(2, 4, 5, seed=1)
    (gradient,) = torch.autograd.grad((quantizer(vectors)[0] * weights).sum(), vectors)
    torch.testing.assert_close(gradient, weights)
    single = ResidualQuantizer(partial(FiniteScalarQuantizer, (5, 4)), 1)
    vectors = noise(2, 2, 5).requires_grad_()
    expected = torch.autograd.grad(FiniteScalarQuantizer((5, 4))(vectors)[0].sum(), vectors)
    assert torch.equal(torch.autograd.grad(single(vectors)[0].sum(), vectors)[0], expected[0])


def test_every_weight_learns_and_the_loss_is_that_of_the_stages() -> None:
    made = codec()
    waves = noise(2, *SHAPE)
    (made(LATENTS, waves) - waves).square().mean().backward()
    unused = [
        name for name, weight in made.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert unused == []
    vectors = made.encoder(waves)
    made.eval()
    made(LATENTS, waves)
    rest, losses = vectors, []
    for stage in made.quantizer.stages:
        quantized, _, loss = stage(rest)
        rest, losses = rest - quantized, [*losses, loss]
    torch.testing.assert_close(made.auxiliary_loss, sum(losses) / 3)


@pytest.mark.train
def test_a_wave_is_learned_by_heart() -> None:
    made, time = codec(), torch.arange(240)
    waves = torch.stack([torch.sin(0.2 * time), torch.sin(0.5 * time)])[:, None] / 2
    adam = torch.optim.Adam(made.parameters(), lr=5e-3)
    for _ in range(300):
        adam.zero_grad()
        loss = (made(LATENTS, waves) - waves).square().mean()
        (loss + made.auxiliary_loss.mean()).backward()
        adam.step()
    assert loss < 0.15 * waves.square().mean()


def test_what_does_not_fit_is_named() -> None:
    refuses(lambda: WaveCodec(SHAPE, (80, 4)), r"waves \[C, T\] of the same .*\(80, 4\)")
    refuses(lambda: WaveCodec(SHAPE, 10), "condition is 10")
    refuses(lambda: codec(strides=(2,)), r"strides \[2\] and widths \[4, 6, 8\]")
    refuses(lambda: codec(stages=0), "0 stages")
    refuses(lambda: codec(quantizer=FiniteScalarQuantizer), "FiniteScalarQuantizer.*give stages 1")
    refuses(lambda: codec()(LATENTS, noise(2, 2, 240)), r"inputs \['B', 1, 'T'\] but got \[2, 2, 240\]")
