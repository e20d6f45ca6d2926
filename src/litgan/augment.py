"""Differentiable augmentation of the real and fake samples that the discriminator gets, for small data sets.

It applies in both networks' updates. The generator does not learn to make augmented samples if the
augmentation is invertible in distribution (Karras et al. 2020, "Training generative adversarial networks with
limited data", section 2.2). How a sample is changed is a function of (seed, iteration, sample index), like
every random number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from litgan.schedules import Schedule, value_at


class Augmentation(nn.Module, ABC):
    """A random change of samples. Its buffers, if it has any, are in the checkpoint."""

    num_uniforms: int  # random numbers per sample

    @abstractmethod
    def forward(self, samples: Tensor, uniforms: Tensor) -> Tensor:
        """Changed samples [B, *sample_shape]; `uniforms` [B, num_uniforms] are uniform in [0, 1)."""

    def move(self, condition: Tensor, uniforms: Tensor, size: torch.Size) -> Tensor:
        """An image condition [B, C, H, W], moved as `forward` moves samples of so many pixels, `size`.

        Colors stay. An augmentation that moves nothing returns the condition.
        """
        raise ValueError(
            f"{type(self).__name__} does not say how an image condition moves with the samples: give it a "
            "method move, or leave model.augment out."
        )

    def pair(
        self, samples: Tensor, condition: Tensor | None, uniforms: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Changed samples, and their condition: moved alike if it is an image, else as it is."""
        if condition is not None and condition.ndim == 4:
            condition = self.move(condition, uniforms, samples.shape[2:])
        return self(samples, uniforms), condition

    def update_statistics(self, real_logits: Tensor) -> None:
        """Called in each discriminator step with the logits [B, K] of this rank's real samples."""

    def update_p(self, updates: int, images: int) -> None:
        """Called after the `updates`-th discriminator step, which showed so many images over all ranks."""

    def logs(self) -> dict[str, Tensor]:
        """Its state, to be logged: key -> scalar on its device."""
        return {}


class AdaptiveAugmentation(Augmentation):
    """Changes with a probability `p` that may follow the discriminator: Karras et al. 2020, section 3.

    Every `interval` discriminator steps p increases if r = E[sign D(x)] over the reals (eq. 1) exceeds
    `target`, else it decreases. A relativistic loss leaves the sign of D(x) open: give no target there.

    Args:
        p: initial probability; a schedule sets it as a function of `images_seen` instead.
        target: r at which p stays; None disables the adaptation.
        interval: discriminator steps between two updates of p.
        images: number of images in which p can move from 0 to 1.

    Raises:
        ValueError: p is not between 0 and 1, or both a schedule and a target are given.
    """

    p: Tensor
    sign_sums: Tensor

    def __init__(self, p: float | Schedule, target: float | None, interval: int, images: int) -> None:
        super().__init__()
        name = type(self).__name__
        if isinstance(p, Schedule) and target is not None:
            raise ValueError(
                f"{name} has a schedule for p and a target: give target null, or a number for p."
            )
        if not isinstance(p, Schedule) and not 0 <= p <= 1:
            raise ValueError(f"{name} has p = {p}, which is no probability: give 0 to 1.")
        self.schedule, self.target, self.interval, self.images = p, target, interval, images
        self.register_buffer("p", torch.tensor(value_at(p, 0)))
        self.register_buffer("sign_sums", torch.zeros(2))  # sum of the signs, and their number

    def step_schedule(self, images_seen: int) -> None:
        """Sets p to the value of its schedule, if it has one."""
        if isinstance(self.schedule, Schedule):
            self.p.fill_(self.schedule(images_seen))

    @torch.no_grad()
    def update_statistics(self, real_logits: Tensor) -> None:
        if self.target is not None:
            signs = real_logits.detach().float().sign()
            self.sign_sums += torch.stack([signs.sum(), torch.ones_like(signs).sum()])

    @torch.no_grad()
    def update_p(self, updates: int, images: int) -> None:
        if self.target is None or updates % self.interval:
            return
        if dist.is_available() and dist.is_initialized():  # all ranks get the same p
            dist.all_reduce(self.sign_sums)
        excess = self.sign_sums[0] / self.sign_sums[1] - self.target
        self.p.add_(excess.sign() * (images * self.interval / self.images)).clamp_(0.0, 1.0)
        self.sign_sums.zero_()

    def logs(self) -> dict[str, Tensor]:
        return {"augmentation/p": self.p.clone()}


class DiffAugment(Augmentation):
    """Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training", for images.

    color: brightness + U(-1/2, 1/2) of the half-range, saturation x U(0, 2), contrast x U(1/2, 3/2).
    translation: by whole pixels, up to an eighth of each side; 0 (gray) moves in, as in the authors' code.
    cutout: a gray square of half the side, anywhere.

    Args:
        policy: any of color, translation and cutout.

    Raises:
        ValueError: for another policy.
    """

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout")) -> None:
        super().__init__()
        known = {"color": (self.color, 3), "translation": (self.translation, 2), "cutout": (self.cutout, 2)}
        if wrong := [name for name in policy if name not in known]:
            raise ValueError(f"DiffAugment has no policy {wrong[0]!r}: give any of {', '.join(known)}.")
        self.policy = tuple(policy)
        self.counts = [known[name][1] for name in policy]
        self.num_uniforms = sum(self.counts)

    def forward(self, samples: Tensor, uniforms: Tensor) -> Tensor:
        check_images(self, samples)
        left = iter(uniforms.unbind(1))
        for name in self.policy:
            samples = getattr(self, name)(samples, left)
        return samples

    def move(self, condition: Tensor, uniforms: Tensor, size: torch.Size) -> Tensor:
        """Its translation alone. Raises ValueError: the condition has another size than the samples."""
        if "translation" not in self.policy:
            return condition
        if condition.shape[2:] != size:
            raise ValueError(
                f"DiffAugment translates a condition of {list(condition.shape[2:])} pixels no more than its "
                f"samples of {list(size)}: give equal sizes, or leave translation out of its policy."
            )
        before = sum(self.counts[: self.policy.index("translation")])
        return self.translation(condition, iter(uniforms[:, before:].unbind(1)))

    def color(self, images: Tensor, uniforms: Iterator[Tensor]) -> Tensor:
        bright, saturation, strong = (next(uniforms).view(-1, 1, 1, 1).to(images.dtype) for _ in range(3))
        images = images + (bright - 0.5)
        gray = images.mean(1, keepdim=True)
        images = gray + (images - gray) * (2 * saturation)
        middle = images.mean((1, 2, 3), keepdim=True)
        return middle + (images - middle) * (strong + 0.5)

    def translation(self, images: Tensor, uniforms: Iterator[Tensor]) -> Tensor:
        for axis in (2, 3):
            side = images.shape[axis]
            reach = int(side / 8 + 0.5)
            by = (next(uniforms) * (2 * reach + 1)).long() - reach
            source = torch.arange(side, device=images.device)[None] - by[:, None]
            shape = [len(images), 1, side, 1] if axis == 2 else [len(images), 1, 1, side]
            inside = ((source >= 0) & (source < side)).view(shape)
            index = source.clamp(0, side - 1).view(shape).expand_as(images)
            images = torch.where(inside, images.gather(axis, index), 0.0)
        return images

    def cutout(self, images: Tensor, uniforms: Iterator[Tensor]) -> Tensor:
        cut = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=images.device)
        for axis in (2, 3):
            side = images.shape[axis]
            size = int(side / 2 + 0.5)
            center = (next(uniforms) * (side + 1 - size % 2)).floor().view(-1, 1, 1, 1)
            shape = [1, 1, side, 1] if axis == 2 else [1, 1, 1, side]
            distance = torch.arange(side, device=images.device).view(shape) - center
            cut = cut & (distance >= -(size // 2)) & (distance < size - size // 2)
        return torch.where(cut, 0.0, images)


def check_images(augment: Augmentation, samples: Tensor) -> None:
    """Raises ValueError unless the samples are images of at least 8 pixels a side."""
    if samples.ndim != 4 or min(samples.shape[-2:]) < 8:
        raise ValueError(
            f"{type(augment).__name__} changes images [B, C, H, W] of at least 8 pixels a side, not "
            f"{list(samples.shape)}: leave model.augment out for such data."
        )
