"""ADA: closed forms of its warps, and a probability that follows the discriminator."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from shared.augmentation import Augments, draws, smooth

from litgan.zoo import ADA, warps
from litgan.zoo.ada import normal


class TestADA(Augments):
    augment = ADA(1.0, target=None)


def test_uniform_numbers_become_normal_ones():
    uniform = torch.rand(100_000, generator=torch.Generator().manual_seed(0)).clamp(2**-20, 1 - 2**-20)
    exact = torch.special.ndtri(uniform.double()).float()
    torch.testing.assert_close(normal(uniform), exact, rtol=1e-6, atol=1e-6)
    assert normal(torch.tensor([0.0, 1.0])).isfinite().all()


# -- warps ---------------------------------------------------------------------------------------


def test_halving_undoes_doubling_away_from_the_borders():
    images = torch.randn(2, 3, 32, 40)
    doubled = warps.resample(images, up=True)
    assert doubled.shape == (2, 3, 64, 80)
    back = warps.resample(doubled, up=False)
    torch.testing.assert_close(back[..., 8:-8, 8:-8], images[..., 8:-8, 8:-8], atol=1e-5, rtol=1e-5)
    flat = warps.resample(torch.full((1, 1, 16, 16), 0.5), up=True)
    torch.testing.assert_close(flat, torch.full((1, 1, 32, 32), 0.5))


def inner(images: torch.Tensor) -> torch.Tensor:
    return images[..., 8:-8, 8:-8]


def test_a_shift_by_whole_pixels_is_a_roll():
    images, three = smooth(), torch.full((8,), 3.0)
    moved = warps.warp(images, warps.translate(three, -2 * three / 3))
    torch.testing.assert_close(inner(moved), inner(images.roll((3, -2), (3, 2))), atol=1e-5, rtol=1e-5)


def test_turns_and_mirrors():
    images, one = smooth(), torch.ones(8)
    close = {"atol": 0.02, "rtol": 0.0}  # as the authors' code
    mirrored = warps.warp(images, warps.scale(-one, one))
    torch.testing.assert_close(inner(mirrored), inner(images.flip(3)), **close)
    turned = warps.warp(images, warps.rotate(one * math.pi / 2))
    torch.testing.assert_close(inner(turned), inner(images.rot90(1, (2, 3))), **close)
    twice = warps.warp(images, warps.rotate(one * 1.0) @ warps.rotate(-one * 1.0))
    torch.testing.assert_close(inner(twice), inner(images), atol=1e-5, rtol=1e-5)


def official_warp(images: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """The transform of StyleGAN2-ADA's augment.py, step by step, with half the side as margin."""
    margin, side, taps = images.shape[-1] // 2, images.shape[-1], torch.tensor(warps.SYMLET)
    taps = taps / taps.sum()

    def filtered(images: torch.Tensor, taps: torch.Tensor, stride: int) -> torch.Tensor:
        for kernel, step in ((taps.view(1, 1, -1, 1), (stride, 1)), (taps.view(1, 1, 1, -1), (1, stride))):
            images = F.conv2d(images, kernel.expand(3, -1, -1, -1), stride=step, groups=3)
        return images

    def scaling(factor: float) -> torch.Tensor:
        return torch.diag(torch.tensor([factor, factor, 1.0]))

    padded = F.pad(images, [margin] * 4, mode="reflect")
    doubled = torch.zeros(*padded.shape[:2], 2 * padded.shape[2], 2 * padded.shape[3])
    doubled[..., ::2, ::2] = padded
    doubled = filtered(F.pad(doubled, [6, 5, 6, 5]), 2 * taps.flip(0), 1)
    half = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    matrix = scaling(2.0) @ inverse @ scaling(0.5)
    matrix = half.inverse() @ matrix @ half
    given, wanted = doubled.shape[-1], 2 * (side + 6)
    matrix = scaling(2 / given) @ matrix @ scaling(wanted / 2)
    grid = F.affine_grid(matrix[:, :2], [len(images), 3, wanted, wanted], align_corners=False)
    sampled = F.grid_sample(doubled, grid, "bilinear", "zeros", align_corners=False)
    return filtered(sampled[..., 1:-1, 1:-1], taps, 2)


def test_the_centre_is_that_of_the_authors_code():
    images, one = smooth(), torch.ones(8)
    for inverse in (
        warps.rotate(0.7 * one),
        warps.rotate(math.pi / 2 * one),
        warps.scale(-one, one),
        warps.scale(1.3 * one, 0.8 * one) @ warps.translate(1.7 * one, -2.2 * one),
    ):
        found, wanted = warps.warp(images, inverse), official_warp(images, inverse)
        torch.testing.assert_close(inner(found), inner(wanted), atol=2e-6, rtol=0)


def test_enlarging_by_two_shows_the_middle():
    images, two = smooth(side=32), torch.full((8,), 2.0)
    shown = warps.warp(images, warps.scale(two, two))
    middle = F.interpolate(images[..., 8:24, 8:24], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(inner(shown), inner(middle), atol=0.06, rtol=0.0)


def test_colors():
    images = smooth()
    half = torch.full((8,), 0.5)
    torch.testing.assert_close(warps.apply_color_matrix(images, warps.brightness(half)), images + 0.5)
    torch.testing.assert_close(warps.apply_color_matrix(images, warps.contrast(half)), images * 0.5)
    gray = images.mean(1, keepdim=True).expand_as(images)
    torch.testing.assert_close(warps.apply_color_matrix(images, warps.saturation(0 * half)), gray)
    flipped = warps.apply_color_matrix(images, warps.flip_luma(2 * half))
    torch.testing.assert_close(flipped, images - 2 * gray)
    third = torch.full((8,), 2 * math.pi / 3)
    torch.testing.assert_close(
        warps.apply_color_matrix(images, warps.rotate_hue(third)), images[:, [2, 0, 1]]
    )
    one = smooth(channels=1)
    torch.testing.assert_close(warps.apply_color_matrix(one, warps.saturation(0 * half)), one)
    torch.testing.assert_close(warps.apply_color_matrix(one, warps.flip_luma(2 * half)), -one)


def test_colors_of_other_than_pictures_are_refused():
    with pytest.raises(ValueError, match="images of 2 channels"):
        warps.apply_color_matrix(torch.zeros(1, 2, 8, 8), warps.contrast(torch.ones(1)))


# -- ADA -----------------------------------------------------------------------------------------


def test_ada_at_zero_is_the_identity_bit_for_bit():
    images, ada = smooth(), ADA()
    assert torch.equal(ada(images, draws(ada, 8)), images)


def test_ada_at_a_half_leaves_some_alone():
    ada = ADA(0.1, target=None, color=False)
    images = smooth(64)
    same = (ada(images, draws(ada, 64)) == images).flatten(1).all(1).float().mean()
    assert 0.3 < same < 0.75  # 0.9 ** 6 * (1 - 0.05) ** 2 = 0.48


def test_ada_at_one_keeps_the_statistics_of_a_batch():
    images = smooth(512, side=16)
    ada = ADA(1.0, target=None, color=False)
    changed = ada(images, draws(ada, 512))
    assert abs(changed.mean() - images.mean()) < 0.01
    assert 0.85 < changed.std() / images.std() < 1.1
    colored = ADA(1.0, target=None)(images, draws(ada, 512))
    assert abs(colored.mean() - images.mean()) < 0.03  # brightness is as often less as more
    assert 1.0 < colored.std() / images.std() < 2.2  # contrast of 2^(N(0, 1/2)), saturation of 2^N(0, 1)


def test_parts_of_the_pipeline_have_their_own_factor_of_p():
    """R3GAN: p 0.55 for geometry and cutout, half of it for each of five color transforms."""
    images, ada = smooth(4000, side=8), ADA(0.55, target=None, color=0.5, cutout=1.0)
    uniforms = torch.rand(10, 4000)
    for change, chance in (
        (ada.transform_colors, 1 - (1 - 0.275) ** 4 * (1 - 0.275 / 2)),  # half of the luma flips do nothing
        (ada.cut_out, 0.55),
    ):
        changed = (change(iter(uniforms), images) - images).abs().flatten(1).amax(1) > 1e-3
        assert changed.float().mean().item() == pytest.approx(chance, abs=0.03)
    with pytest.raises(ValueError, match=r"cutout = 1\.5"):
        ADA(cutout=1.5)


def test_cutout_is_that_of_the_authors_code():
    """augment.py: mask = |(x + 0.5) / width - center x| >= 1/4 or the same in y; images * mask."""
    images, ada = smooth(16), ADA(1.0, target=None, color=False, cutout=1.0)
    uniforms = torch.rand(16, 3)
    uniforms[:, 0] = 0
    found = ada.cut_out(iter(uniforms.unbind(1)), images)
    places = (torch.arange(32) + 0.5) / 32
    x, y = ((places - center[:, None]).abs() >= 0.25 for center in uniforms[:, 1:].unbind(1))
    assert torch.equal(found, images * (x[:, None, None, :] | y[:, None, :, None]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_autocast_moves_no_image_and_changes_no_color(dtype):
    """Real samples are float32, fakes bf16: both are changed as without autocast, to the last bit."""
    images, ada = smooth(16, side=64).to(dtype), ADA(1.0, target=None, cutout=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        changed = ada(images, draws(ada, 16))
    assert torch.equal(changed, ada(images.float(), draws(ada, 16)).to(dtype))


def test_autocast_moves_pictures_by_less_than_a_hundredth_of_a_pixel():
    """The pictures are ramps, so that a value is a place; matrices in bf16 were a pixel off."""
    side, ada = 256, ADA(1.0, target=None, color=False)
    line = (torch.arange(side) + 0.5) / side * 2 - 1
    x, y = torch.meshgrid(line, line, indexing="ij")
    ramps = torch.stack([x, y, 0 * x]).expand(3, -1, -1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        moved = ada(ramps, draws(ada, 3))
    exact = ada(ramps.double(), draws(ada, 3).double())
    assert (moved - exact).abs().max() * side / 2 < 0.01


# -- in the game -------------------------------------------------------------------------------


def test_an_image_condition_moves_as_the_samples_and_keeps_its_colors():
    augment, images = ADA(1.0, target=None, cutout=1.0), smooth(side=64)
    uniforms = draws(augment, 8)
    condition = augment.pair(images, images, uniforms)[1]
    assert torch.equal(condition, ADA(1.0, target=None, color=False)(images, uniforms))
    half = augment.move(F.avg_pool2d(images, 2), uniforms, images.shape[2:])
    error, unmoved = (
        (F.avg_pool2d(condition, 2) - one).abs().mean() for one in (half, F.avg_pool2d(images, 2))
    )
    assert error < 0.1 * unmoved
