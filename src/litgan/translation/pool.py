"""Earlier fakes for the discriminator, Shrivastava et al. 2017, section 2.3, as in CycleGAN's code."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Keeps `size` earlier fakes. In half of the cases a new one is exchanged for one of them.

    The first fakes fill the pool and are passed on. The images are a buffer, so that a checkpoint holds them;
    what happens to them follows from the arguments alone.

    Args:
        size: number of images; 50 in CycleGAN.
        shape: of one image.
    """

    images: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))

    @torch.no_grad()
    def forward(self, fake: Tensor, seen: int, draws: Tensor) -> Tensor:
        """As many fakes, float32, some of them earlier ones.

        Args:
            fake: [B, *shape].
            seen: number of fakes before these.
            draws: uniform in [0, 1), [B, 2], on the CPU: whether a fake is exchanged, and for which.
        """
        size, chosen = len(self.images), []
        for place, (image, (coin, slot)) in enumerate(
            zip(fake.float(), draws.tolist(), strict=True), start=seen
        ):
            held = place if place < size else int(slot * size)
            exchanged = place >= size and coin < 0.5
            chosen.append(self.images[held].clone() if exchanged else image)
            if exchanged or place < size:
                self.images[held] = image
        return torch.stack(chosen)
