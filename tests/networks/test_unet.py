from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litgan.networks import PatchDiscriminator, UNetGenerator

IMAGE, CONDITION = (3, 16, 16), (2, 16, 16)
WIDTHS = (8, 12, 16, 16)
NO_LATENTS = torch.zeros(4, 0)


def unet(**options):
    torch.manual_seed(0)
    return UNetGenerator(IMAGE, CONDITION, **{"widths": WIDTHS, "initialization": "he", **options})


def patch(condition=0, channels=3, **options):
    torch.manual_seed(0)
    options = {"widths": (8, 12, 16), "initialization": "he", **options}
    return PatchDiscriminator((channels, 24, 24), condition, **options)


@pytest.mark.parametrize(("height", "width"), [(16, 32), (21, 13), (5, 50)])
def test_an_image_of_any_size_is_padded_by_its_last_row_and_column_and_cut(height, width):
    generator, condition = unet().eval(), torch.randn(4, 2, height, width)
    rows, columns = (torch.arange(-(-size // 16) * 16).clamp(max=size - 1) for size in (height, width))
    padded = generator(NO_LATENTS, condition[:, :, rows][:, :, :, columns])
    expected = padded[:, :, :height, :width]
    torch.testing.assert_close(generator(NO_LATENTS, condition), expected)


def test_detail_passes_beside_the_bottleneck():
    generator = unet(norm="none").eval()
    nn.init.zeros_(generator.decoder[0][1].weight)  # nothing comes up from the innermost maps
    condition = torch.randn(1, 2, 32, 32).expand(2, -1, -1, -1).clone()
    condition[1, :, 16, 16] += 1
    first, second = generator(NO_LATENTS[:2], condition)
    changed = (first - second).abs().sum(0) > 1e-5
    assert changed[14:19, 14:19].any() and not changed[0].any(), "near the pixel, and not everywhere"


def test_latents_are_channels_beside_the_condition():
    generator, latents = unet(latent_dim=3).eval(), torch.randn(4, 3)
    wider = UNetGenerator(IMAGE, (5, 16, 16), widths=WIDTHS).eval()
    wider.load_state_dict(generator.state_dict())
    condition = torch.randn(4, 2, 16, 16)
    maps = latents.repeat_interleave(256, 1).view(4, 3, 16, 16)
    expected = wider(NO_LATENTS, torch.cat([condition, maps], 1))
    torch.testing.assert_close(generator(latents, condition), expected)


def test_instance_norm_is_batch_norm_of_one_image():
    one, other = (unet(norm=norm, dropout=0.0) for norm in ("instance", "batch"))
    other.load_state_dict(one.state_dict(), strict=False)  # but for running statistics
    condition = torch.randn(1, 2, 32, 16)
    torch.testing.assert_close(one(NO_LATENTS[:1], condition), other(NO_LATENTS[:1], condition))


def test_dropout_is_in_the_three_innermost_stages_and_off_when_samples_are_drawn():
    generator, condition = unet(widths=(4,) * 6, dropout=0.25), torch.randn(4, 2, 64, 64)
    shares = []
    for stage in generator.decoder:
        stage.register_forward_hook(lambda layer, given, made: shares.append((made == 0).float().mean()))
    generator(NO_LATENTS, condition)
    assert [round(4 * share.item()) for share in shares] == [1, 1, 1, 0, 0]
    generator.eval()
    assert torch.equal(generator(NO_LATENTS, condition), generator(NO_LATENTS, condition))


@pytest.mark.parametrize(("layers", "side"), [(2, 16), (3, 34), (4, 70), (5, 142)])
def test_a_logit_sees_a_patch_of_the_published_size(layers, side):
    torch.manual_seed(0)
    shape = (1, side + 2**layers, side + 2**layers)
    discriminator = PatchDiscriminator(shape, widths=[2] * layers, norm="none", initialization="he").double()
    samples = torch.randn(1, *shape, dtype=torch.double, requires_grad=True)
    maps = discriminator.head(discriminator.features(samples)[-1])
    middle = maps.shape[-1] // 2
    (gradient,) = torch.autograd.grad(maps[0, 0, middle, middle], samples)
    for axis in (0, 1):
        seen = gradient[0, 0].any(1 - axis).nonzero()
        assert seen.max() - seen.min() + 1 == side


def test_whatever_the_condition_it_is_concatenated_to_the_image():
    samples, classes = torch.randn(3, 3, 24, 32), torch.tensor([1, 0, 1])
    vectors, smaller = torch.randn(3, 2), torch.randn(3, 2, 12, 16)
    maps = {
        2: (classes, F.one_hot(classes, 2)[:, :, None, None] + torch.zeros(24, 32)),
        (2,): (vectors, vectors[:, :, None, None] + torch.zeros(24, 32)),
        (2, 24, 24): ((image := torch.randn(3, 2, 24, 32)), image),
        (2, 12, 12): (smaller, smaller.repeat_interleave(2, 2).repeat_interleave(2, 3)),
    }
    for condition, (given, concatenated) in maps.items():
        discriminator, plain = patch(condition), patch(channels=5)
        plain.load_state_dict(discriminator.state_dict())
        expected = plain(torch.cat([samples, concatenated], 1))
        torch.testing.assert_close(discriminator(samples, given), expected)


def test_a_discriminator_of_samples_alone_reads_no_condition():
    discriminator, samples = patch(CONDITION, reads_condition=False), torch.randn(2, 3, 24, 24)
    assert torch.equal(discriminator(samples, torch.randn(2, 2, 24, 24)), patch()(samples))


def test_features_are_the_maps_in_front_of_the_logits():
    discriminator, samples = patch(), torch.randn(2, 3, 24, 40)
    maps = discriminator.features(samples)
    assert [tuple(each.shape[1:]) for each in maps] == [(8, 12, 20), (12, 6, 10), (16, 5, 9)]
    assert torch.equal(discriminator.head(maps[-1]).flatten(1), discriminator(samples))
