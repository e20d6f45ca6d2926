"""LPIPS, the learned perceptual distance of two images."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

from litgan.files import one_at_a_time
from litgan.losses import to_float32
from litgan.precision import full_float32

Network = Literal["vgg", "alex", "squeeze"]
SMALLEST = {"vgg": 16, "alex": 31, "squeeze": 17}  # pixels a side of which the network leaves something
UNUSABLE = (OSError, RuntimeError, EOFError, pickle.UnpicklingError)  # no network, no space, a broken file


class LPIPS(nn.Module):
    """Distance of pairs of images in weighted activations of a classifier: Zhang et al. 2018, eq. 1.

    By torchmetrics, with the authors' weights of the layers. As one of `Realism.pair_metrics` it is logged as
    metric/lpips_<network>, and papers report "alex"; `litgan.reconstruction.Distance` makes a term of it, for
    which they recommend "vgg".

    Args:
        network: whose ImageNet weights torchvision takes from torch's hub folder, or downloads.

    Raises:
        RuntimeError: the weights are not there, and cannot be downloaded.
        ValueError: another network.
    """

    def __init__(self, network: Network = "vgg") -> None:
        super().__init__()
        if network not in SMALLEST:
            raise ValueError(f"LPIPS has no network {network!r}: choose one of {', '.join(SMALLEST)}.")
        self.kind, folder = network, Path(torch.hub.get_dir()) / "checkpoints"
        try:
            with one_at_a_time(folder):  # other ranks wait for the one that downloads
                measure = LearnedPerceptualImagePatchSimilarity(network)
        except UNUSABLE as error:
            raise RuntimeError(
                f"LPIPS has no weights of {network} ({error}): put torchvision's file into {folder}, or "
                "leave LPIPS out."
            ) from error
        self.name = f"lpips_{network}"
        self.network = measure.net.requires_grad_(False).eval()

    def forward(self, *, real: Tensor, fake: Tensor) -> Tensor:
        """Distances [N] of images [N, 1 or 3, H, W] in [-1, 1]; gray becomes three equal channels.

        Raises ValueError: the samples are no such images, or too small for the network.
        """
        least = SMALLEST[self.kind]
        if real.ndim != 4 or real.shape[1] not in (1, 3) or min(real.shape[2:]) < least:
            raise ValueError(
                f"LPIPS with {self.kind} takes images [N, 1 or 3, H, W] of at least {least} pixels a side, "
                f"not {list(real.shape)}: choose another network or distance."
            )
        fake, real = (to_float32(side).expand(-1, 3, -1, -1).clamp(-1, 1) for side in (fake, real))
        with full_float32(real.device):
            distance: Tensor = self.network(fake, real)
        return distance.flatten(1).mean(1)

    def train(self, mode: bool = True) -> LPIPS:
        """Stays in evaluation mode."""
        return super().train(False)
