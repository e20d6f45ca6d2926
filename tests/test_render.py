from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from litgan.render import (
    GAP,
    PLANE,
    SMALLEST_TILE,
    ImageBatch,
    PointBatch,
    SampleBatch,
    add_caption,
    save_png,
    signed_heat,
    stack,
    tile,
)


def test_a_grid_holds_the_samples_row_by_row() -> None:
    pixels = torch.randint(0, 256, (5, 3, 80, 80), dtype=torch.uint8)
    picture = ImageBatch(pixels).render(columns=3)
    assert picture.shape == (2 * 80 + GAP, 3 * 80 + 2 * GAP, 3)
    for index in range(5):
        top, left = index // 3 * (80 + GAP), index % 3 * (80 + GAP)
        assert torch.equal(picture[top : top + 80, left : left + 80], pixels[index].permute(1, 2, 0))
    assert (picture[80 : 80 + GAP] == 255).all() and (picture[:, 80 : 80 + GAP] == 255).all()
    assert (picture[80 + GAP :, 2 * (80 + GAP) :] == 255).all(), "the place of the sixth is white"
    square = tile(torch.zeros(10, 4, 4, 3, dtype=torch.uint8))
    assert square.shape == (3 * 6 - GAP, 4 * 6 - GAP, 3), "about square by default"


def test_small_gray_images_are_enlarged_pixel_by_pixel() -> None:
    pixels = torch.randint(0, 256, (1, 1, 8, 8), dtype=torch.uint8)
    picture, scale = ImageBatch(pixels).render(), SMALLEST_TILE // 8
    assert picture.shape == (SMALLEST_TILE, SMALLEST_TILE, 3)
    assert torch.equal(picture[::scale, ::scale, 0], pixels[0, 0])
    assert torch.equal(picture[scale - 1 :: scale, scale - 1 :: scale, 2], pixels[0, 0])


@pytest.mark.parametrize("pixels", [torch.zeros(2, 1, 8, 8), torch.zeros(2, 2, 8, 8, dtype=torch.uint8)])
def test_what_is_no_image_is_refused(pixels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"Images are uint8 of shape .*: decode the samples first"):
        ImageBatch(pixels)


def test_heat_is_red_above_zero_blue_below_and_white_at_it() -> None:
    values = torch.tensor([2.0, 0.0, -1.0, -2.0]).view(1, 1, 2, 2)
    expected = [[255, 0, 0], [255, 255, 255], [128, 128, 255], [0, 0, 255]]
    assert signed_heat(values).permute(0, 2, 3, 1).reshape(-1, 3).tolist() == expected
    assert torch.equal(signed_heat(values), signed_heat(1e-9 * values)), "where, not how much"


def test_feedback_stands_below_its_samples() -> None:
    side = SMALLEST_TILE
    pixels, feedback = torch.zeros(4, 1, side, side, dtype=torch.uint8), torch.ones(4, 1, side, side)
    picture = ImageBatch(pixels).render_with_grad(feedback, columns=2)
    rows = [picture[top + 5, 5].tolist() for top in range(0, picture.shape[0], side + GAP)]
    assert rows == [[0, 0, 0], [255, 0, 0], [0, 0, 0], [255, 0, 0]]


def test_points_lie_where_they_are_and_lines_lead_down_the_feedback() -> None:
    points = PointBatch(torch.tensor([[0.5, 0.5]]), limit=1.0)
    drawn = (points.render() != 255).any(-1).nonzero().float()
    assert drawn.mean(0).tolist() == pytest.approx([PLANE / 4, 3 * PLANE / 4], abs=1), "row, column"
    pushed = points.render_with_grad(torch.tensor([[1.0, 0.0]]))  # descent leads to the left
    line = (pushed != points.render()).any(-1).nonzero().float()
    assert line[:, 1].min() == pytest.approx(3 * PLANE / 4 - 0.1 * PLANE, abs=2)
    assert line[:, 1].max() <= 3 * PLANE / 4 + 1
    assert len(points) == 1


def test_pictures_are_stacked_on_white() -> None:
    canvas = stack([torch.zeros(2, 3, 3, dtype=torch.uint8), torch.zeros(1, 5, 3, dtype=torch.uint8)], gap=1)
    assert (canvas[:, :, 0] == 0).int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [0] * 5, [1] * 5]


def test_a_caption_stands_below_its_picture_and_is_broken_to_its_width() -> None:
    for width in (60, 480):
        picture = torch.full((20, width, 3), 7, dtype=torch.uint8)
        whole = add_caption(picture, ImageBatch.caption)
        assert torch.equal(whole[:20], picture) and whole.shape[1] == width
        ink = (whole[24:] < 128).all(-1)
        assert ink.any(1).float().mean() > 0.4, "lines of letters down to the end"
        assert not ink[-1].any() and not ink[:, -1].any(), "none is cut off"
    assert torch.equal(add_caption(picture, SampleBatch.caption), picture)


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    images = ImageBatch(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8))
    (path,) = images.save(tmp_path / "new" / "grid")
    assert path == tmp_path / "new" / "grid.png"
    assert torch.equal(torch.from_numpy(np.array(Image.open(path))), images.render())
    before = path.read_bytes()
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        save_png(torch.zeros(2, 2, 3, dtype=torch.uint8), path)
    assert path.read_bytes() == before
