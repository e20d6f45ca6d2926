from __future__ import annotations

import numpy as np
import pytest
import torch
import wandb
from PIL import Image

from litgan.text import TextBatch

ALPHABET = " abcé"


def texts(*rows):
    return TextBatch(torch.tensor(rows), ALPHABET)


def test_lines_are_the_decoded_tokens_and_others_are_refused():
    batch = texts([1, 2, 0], [4, 3, 0])
    assert len(batch) == 2 and batch.lines == ["ab ", "éc "]
    with pytest.raises(ValueError, match=r"^Token 5 is outside the alphabet of 5 characters: [^\n]+$"):
        texts([1, 5])


def test_the_picture_has_a_cell_of_one_size_for_each_character():
    picture = texts([1, 2, 0, 1], [0, 0, 0, 0]).render()
    height, width = picture.shape[0] // 2, picture.shape[1] // 4
    cells = picture.unflatten(0, (2, height)).unflatten(2, (4, width)).permute(0, 2, 1, 3, 4)
    assert picture.dtype == torch.uint8 and picture.shape == (2 * height, 4 * width, 3)
    assert (cells[1] == 255).all() and (cells[0, 2] == 255).all(), "spaces are white"
    assert torch.equal(cells[0, 0], cells[0, 3]) and not torch.equal(cells[0, 0], cells[0, 1])


def test_the_gradient_colors_the_background():
    batch = texts([1, 2, 3, 0])
    feedback = torch.zeros(1, 5, 4)
    feedback[0, 1, 0] = 2.0  # this character raises the loss
    feedback[0, 2, 1] = -2.0  # this character lowers it
    feedback[0, :, 2] = 5.0  # all characters equal
    feedback[0, 4, 3] = -1.0  # another character lowers it
    picture = batch.render_with_grad(feedback)
    assert picture.shape == batch.render().shape
    width = picture.shape[1] // 4
    corners = [picture[0, place * width].tolist() for place in range(4)]
    assert corners[0] == [255, 0, 0] and corners[1] == [0, 0, 255] and corners[2] == [255, 255, 255]
    assert corners[3][0] == 255 and 150 < corners[3][1] < 255, "a quarter of a half as red"


def test_a_text_file_is_saved_beside_the_picture(tmp_path):
    batch = texts([1, 2, 0], [4, 3, 0])
    picture, text = batch.save(tmp_path / "new.folder" / "samples_seed0")
    assert (picture.name, text.name) == ("samples_seed0.png", "samples_seed0.txt")
    assert text.read_bytes() == "ab \néc \n".encode()
    assert torch.equal(torch.from_numpy(np.array(Image.open(picture))), batch.render())
    assert sorted(path.name for path in text.parent.iterdir()) == [picture.name, text.name]


def test_wandb_gets_a_table():
    (table,) = texts([1, 2, 0], [4, 3, 0]).wandb_media().values()
    assert isinstance(table, wandb.Table) and table.data == [["ab "], ["éc "]]
