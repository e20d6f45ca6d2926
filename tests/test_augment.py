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


@pytest.mark.parametrize("side", [32, 20, 10])
def test_diffaugment_translates_and_cuts_as_the_authors_do(side):
    """Zeros are padded and a window is taken; a square is multiplied by zero (DiffAugment_pytorch.py)."""
    images, moved, cut = smooth(64, side=side), DiffAugment(["translation"]), DiffAugment(["cutout"])
    uniforms, reach, size = draws(moved, 64), int(side * 0.125 + 0.5), int(side * 0.5 + 0.5)
    for image, found, steps in zip(images, moved(images, uniforms), uniforms, strict=True):
        top, left = (2 * reach - int((2 * reach + 1) * u) for u in steps)
        padded = F.pad(image, [reach] * 4)
        assert torch.equal(found, padded[:, top : top + side, left : left + side])
    for image, found, centers in zip(images, cut(images, uniforms), uniforms, strict=True):
        offsets = (int(u * (side + 1 - size % 2)) for u in centers)
        y, x = ((torch.arange(size) + offset - size // 2).clamp(0, side - 1) for offset in offsets)
        mask = torch.ones(1, side, side)
        mask[:, y[:, None], x] = 0
        assert torch.equal(found, image * mask)


def test_unknown_policies_are_refused():
    with pytest.raises(ValueError, match="no policy 'zoom'"):
        DiffAugment(["zoom"])
