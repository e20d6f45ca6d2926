from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from shared import exporting
from torch import nn

from litgan.networks import FiniteScalarQuantizer, PatchDiscriminator, VectorQuantizer
from litgan.translation import MultiScale, ResNetTranslator, SuperResolver, VQAutoencoder

NO_LATENTS = torch.zeros(2, 0)
PATCH = partial(PatchDiscriminator, widths=(8, 12), initialization="he")


def images(channels, height, width):
    return 2 * torch.rand(2, channels, height, width) - 1


def translator(shape, condition, **options):
    torch.manual_seed(0)
    return ResNetTranslator(shape, condition, **{"widths": (4, 6, 8), "initialization": "he", **options})


@pytest.mark.parametrize(
    "make",
    [
        partial(translator, blocks=1),
        partial(VQAutoencoder, quantizer=partial(FiniteScalarQuantizer, (5, 5)), widths=(4, 4, 4), blocks=1),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(16, 24), (21, 13)])
def test_an_image_of_any_size_is_padded_by_its_last_row_and_column_and_cut(make, height, width):
    made, given = make((3, 8, 8), (2, 8, 8)).eval(), images(2, height, width)
    rows, columns = (torch.arange(-(-size // 4) * 4).clamp(max=size - 1) for size in (height, width))
    padded = made(NO_LATENTS, given[:, :, rows][:, :, :, columns])
    torch.testing.assert_close(made(NO_LATENTS, given), padded[:, :, :height, :width])


def test_borders_of_layers_that_keep_the_size_are_reflected():
    made = translator((1, 16, 16), (1, 16, 16), widths=(4,), blocks=2)
    constant = torch.full((2, 1, 16, 16), 0.3)
    assert made(NO_LATENTS, constant).flatten(1).std(dim=1).max() < 1e-6, "zeros at the borders would show"


def test_without_its_last_layer_a_residual_block_changes_nothing():
    made = translator((1, 16, 16), (1, 16, 16), blocks=3)
    maps = torch.randn(2, 8, 4, 4)
    for block in made.blocks:
        nn.init.zeros_(block.layers[-2].weight)
        assert torch.equal(block(maps), maps)


def test_the_super_resolver_sees_all_and_shuffles_the_pixels_of_each_factor():
    made = SuperResolver((3, 36, 24), (2, 6, 4), width=5, blocks=1)
    assert [layer[1].upscale_factor for layer in made.upsample] == [2, 3]
    first = images(2, 5, 7)
    maps = made.first(first)
    maps = maps + made.fusion(maps + made.blocks[0].last(F.relu(made.blocks[0].first(maps))))
    for layer, factor in zip(made.upsample, (2, 3), strict=True):
        given = layer[0](maps)
        maps = torch.empty(2, 5, factor * maps.shape[2], factor * maps.shape[3])
        for row in range(factor):
            for column in range(factor):
                maps[:, :, row::factor, column::factor] = given[:, factor * row + column :: factor**2]
    torch.testing.assert_close(made(NO_LATENTS, first), made.head(maps))


def test_each_scale_gets_the_averages_of_samples_and_condition_and_counts_its_logits():
    torch.manual_seed(0)
    made = MultiScale((3, 16, 21), (2, 16, 21), discriminators=[PATCH] * 2)
    samples, condition = images(3, 16, 21), images(2, 16, 21)
    halves = []
    for maps in (samples, condition):
        inside = F.conv2d(torch.ones_like(maps[:, :1]), torch.ones(1, 1, 3, 3), stride=2, padding=1)
        kernel = torch.ones(maps.shape[1], 1, 3, 3)
        halves.append(F.conv2d(maps, kernel, stride=2, padding=1, groups=maps.shape[1]) / inside)
    first, second = made.discriminators
    parts = first(samples, condition), second(*halves)
    torch.testing.assert_close(made(samples, condition), torch.cat(parts, 1))
    assert made.logit_counts == tuple(part.shape[1] for part in parts) and halves[0].shape[2:] == (8, 11)
    features = [*first.features(samples, condition), *second.features(*halves)]
    torch.testing.assert_close(made.features(samples, condition), features)


@pytest.mark.parametrize(("condition", "given"), [((4,), torch.randn(2, 4)), (3, torch.tensor([2, 0]))])
def test_a_condition_that_is_no_image_is_the_same_at_all_scales(condition, given):
    made, samples = MultiScale((3, 16, 16), condition, discriminators=[PATCH] * 2), images(3, 16, 16)
    first, second = made.discriminators
    small = F.avg_pool2d(samples, 3, 2, 1, count_include_pad=False)
    torch.testing.assert_close(
        made(samples, given), torch.cat([first(samples, given), second(small, given)], 1)
    )


def autoencoder(quantizer, **options):
    torch.manual_seed(0)
    options = {"widths": (8, 12, 12), "blocks": 1, **options}
    return VQAutoencoder((3, 16, 16), (3, 16, 16), quantizer=quantizer, **options)


@pytest.mark.parametrize(
    "quantizer", [partial(VectorQuantizer, 16, 4), partial(FiniteScalarQuantizer, (4, 4))]
)
def test_an_image_passes_through_its_codes_alone(quantizer):
    made, given = autoencoder(quantizer), images(3, 24, 16)
    made(NO_LATENTS, given)  # the codebook begins
    made.eval()
    outputs, codes = made(NO_LATENTS, given), made.encode(given)
    assert codes.shape == (2, 6, 4) and torch.equal(codes, made.codes)
    assert len(codes.unique()) > 1 and 1 < made.perplexity <= 16
    torch.testing.assert_close(made.decode(codes), outputs)


def test_the_auxiliary_loss_is_that_of_the_last_pass_and_moves_the_encoder():
    made, given = autoencoder(partial(VectorQuantizer, 16, 4)), images(3, 16, 16)
    made(NO_LATENTS, given)
    assert made.auxiliary_loss.shape == (2,)
    made.auxiliary_loss.sum().backward()
    assert all(weight.grad is not None for weight in made.encoder.parameters())
    assert all(weight.grad is None for weight in made.decoder.parameters())


@pytest.mark.heavy
@pytest.mark.parametrize(
    "made",
    [
        translator((3, 16, 16), (3, 16, 16), blocks=1),
        SuperResolver((3, 16, 16), (3, 8, 8), width=4, blocks=1),
        autoencoder(partial(FiniteScalarQuantizer, (4, 4))),
    ],
)
def test_onnx_takes_an_image_of_any_size(made, tmp_path):
    exporting.check_any_size(made.eval(), made.condition, tmp_path)
