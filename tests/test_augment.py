"""Augmentation: gradients, and what is published."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from shared.augmentation import Augments, draws, smooth

from litgan.augment import DiffAugment


class TestDiffAugment(Augments):
    augment = DiffAugment()


@pytest.mark.parametrize("policy", ["color", "translation", "cutout"])
def test_the_gradient_of_each_policy_is_that_of_finite_differences(policy):
    augment = DiffAugment([policy])
    images = smooth(2, side=8).double().requires_grad_()
    chances = draws(augment, 2).double()
    assert torch.autograd.gradcheck(lambda x: augment(x, chances), images)


def test_diffaugment_translates_and_cuts_as_the_authors_do():
    """Zeros are padded and a window is taken; a square is multiplied by zero (DiffAugment_pytorch.py)."""
    images, moved, cut = smooth(64), DiffAugment(["translation"]), DiffAugment(["cutout"])
    uniforms = draws(moved, 64)
    for image, found, (down, right) in zip(images, moved(images, uniforms), uniforms, strict=True):
        top, left = (4 - (int(9 * u) - 4) for u in (down, right))
        assert torch.equal(found, F.pad(image, [4] * 4)[:, top : top + 32, left : left + 32])
    for image, found, centre in zip(images, cut(images, uniforms), uniforms, strict=True):
        y, x = (slice(max(int(32 * u) - 8, 0), int(32 * u) + 8) for u in centre)
        mask = torch.ones(1, 32, 32)
        mask[:, y, x] = 0
        assert torch.equal(found, image * mask)
    with pytest.raises(ValueError, match="no policy 'zoom'"):
        DiffAugment(["zoom"])
