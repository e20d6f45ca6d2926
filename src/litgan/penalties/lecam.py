"""LeCam: the judgement of each side stays close to what the other side used to get."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from litgan.losses import widen
from litgan.noise import Noise
from litgan.penalties.base import Penalty
from litgan.schedules import Schedule


class LeCam(Penalty, nn.Module):
    """Tseng et al. 2021, "Regularizing GANs under limited data", eq. 3:

        (D(x) - alpha_F)^2 + (D(G(z)) - alpha_R)^2,

    where alpha_R and alpha_F are running means of the logits of reals and fakes, over all ranks; they are
    in the checkpoint. Until they have seen 1 / (1 - decay) turns they are plain means.

    Args:
        weight: As in `Penalty`; 0.3 with BigGAN on CIFAR-10, 0.01 with StyleGAN2 in the paper.
        every: As in `Penalty`.
        decay: gamma of eq. 4, what an old mean keeps.
    """

    name = "lecam"
    means: Tensor
    looks: Tensor

    def __init__(self, weight: float | Schedule = 0.3, every: int = 1, decay: float = 0.99) -> None:
        nn.Module.__init__(self)
        Penalty.__init__(self, weight, every)
        self.decay = decay
        self.register_buffer("means", torch.zeros(2))  # of reals, of fakes
        self.register_buffer("looks", torch.tensor(0.0))

    def __call__(
        self,
        discriminator: Callable[..., Tensor],
        *,
        real: Tensor,
        fake: Tensor,
        real_logits: Tensor,
        fake_logits: Tensor,
        labels: Tensor | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        on_real, on_fake = (widen(logits).flatten(1).mean(1) for logits in (real_logits, fake_logits))
        self.remember(torch.stack([on_real.detach().mean(), on_fake.detach().mean()]).float())
        of_reals, of_fakes = self.means.clone()
        return (on_real - of_fakes).square() + (on_fake - of_reals).square()

    @torch.no_grad()
    def remember(self, means: Tensor) -> None:
        """Moves the running means; all ranks alike."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(means)
            means /= dist.get_world_size()
        self.means.lerp_(means, (1 / (self.looks + 1)).clamp_min(1 - self.decay))
        self.looks += 1
