"""Augmentation: gradients, and what is published."""

from __future__ import annotations

import pytest
import torch
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


def test_diffaugment_translates_and_cuts_as_published():
    images = torch.ones(512, 1, 32, 32)
    moved = DiffAugment(["translation"])
    black = (moved(images, draws(moved, 512)) == -1).float().mean((2, 3))
    assert black.max() <= 1 - (28 / 32) ** 2 + 1e-6 and (black == 0).float().mean() < 0.1
    cut = DiffAugment(["cutout"])
    black = (cut(images, draws(cut, 512)) == -1).float().sum((2, 3))
    assert black.max() == 16 * 16 and black.min() >= 8 * 8
    with pytest.raises(ValueError, match="no policy 'zoom': give any of color, translation, cutout"):
        DiffAugment(["zoom"])
