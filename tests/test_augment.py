"""Augmentation: gradients, and what is published."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from shared.augmentation import Augments, Pictures, draws, images_gan, smooth

from litgan.augment import AdaptiveAugmentation, DiffAugment
from litgan.schedules import Linear


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


class Mirror(AdaptiveAugmentation):
    """Some samples are mirrored."""

    num_uniforms = 1

    def __init__(self, p, target=None, interval=4, images=1000):
        super().__init__(p, target, interval, images)

    def forward(self, samples, uniforms):
        return torch.where((uniforms < self.p).view(-1, 1, 1, 1), samples.flip(3), samples)


@pytest.mark.parametrize(("logits", "sign"), [(torch.ones(8, 1), 1), (torch.tensor([[1.0], [-1.0]] * 4), -1)])
def test_p_rises_while_the_discriminator_overfits_and_falls_while_it_is_fooled(logits, sign):
    augment = Mirror(0.5, 0.6, 4, 1000)
    for turn in range(1, 9):
        augment.update_statistics(logits)
        augment.update_p(turn, 10)
    assert augment.p.item() == pytest.approx(0.5 + sign * 2 * 40 / 1000)
    for turn in range(9, 400):
        augment.update_statistics(logits)
        augment.update_p(turn, 10)
    assert augment.p.item() == (1.0 if sign > 0 else 0.0)


def test_p_follows_a_schedule_or_stays():
    augment = Mirror(Linear(0.0, 0.4, images=100))
    augment.step_schedule(50)
    assert augment.p.item() == pytest.approx(0.2)
    with pytest.raises(ValueError, match="a schedule for p and a target"):
        Mirror(Linear(0.0, 0.4, images=100), target=0.6)
    with pytest.raises(ValueError, match="which is no probability: give 0 to 1"):
        Mirror(1.5)


def test_p_is_logged_kept_and_resumed_bit_for_bit(tiny_gan, make_trainer, tmp_path):
    def run(iterations, ckpt_path=None):
        gan = images_gan(tiny_gan, augment=Mirror(0.3, 0.6, 2, 200))
        trainer = make_trainer(iterations)
        trainer.fit(gan, datamodule=Pictures(), ckpt_path=ckpt_path)
        return gan, trainer

    straight, _ = run(6)
    assert straight.augment.p != 0.3 and "augmentation/p" in straight.last_logs
    _, trainer = run(3)
    trainer.save_checkpoint(tmp_path / "cut.ckpt")
    resumed, _ = run(6, tmp_path / "cut.ckpt")
    mine, theirs = resumed.state_dict(), straight.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in theirs.items())
