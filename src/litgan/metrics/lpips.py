"""LPIPS, the learned perceptual distance of two images."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights

from litgan.files import one_at_a_time
from litgan.losses import to_float32
from litgan.precision import full_float32
from litgan.rebuild import first_line

Network = Literal["vgg", "alex", "squeeze"]
SMALLEST = {"vgg": 16, "alex": 31, "squeeze": 17}  # pixels a side of which the network leaves something
WEIGHTS = {
    "vgg": VGG16_Weights.DEFAULT, "alex": AlexNet_Weights.DEFAULT, "squeeze": SqueezeNet1_1_Weights.DEFAULT,
}  # fmt: skip
UNUSABLE = (OSError, RuntimeError, EOFError, pickle.UnpicklingError)  # no network, no space, a broken file


class LPIPS(nn.Module):
    """Distance of pairs of images in weighted activations of a classifier: Zhang et al. 2018, eq. 1.

    By torchmetrics, with the authors' weights of the layers. As one of `Realism.pair_metrics` it is logged as
    metric/lpips_<network>, and papers report "alex"; `litgan.reconstruction.Distance` makes a term of it, for
    which they recommend "vgg".

    The weights are read at the first call: sampling from a checkpoint needs none.

    Args:
        network: whose ImageNet weights are torchvision's, in torch's hub folder.
        download: whether they may be downloaded if they are missing.

    Raises:
        ValueError: another network.
    """

    def __init__(self, network: Network = "vgg", *, download: bool = True) -> None:
        super().__init__()
        if network not in SMALLEST:
            raise ValueError(f"LPIPS has no network {network!r}: choose one of {', '.join(SMALLEST)}.")
        self.kind, self.name, self.download = network, f"lpips_{network}", download
        self.network: nn.Module | None = None

    def forward(self, *, real: Tensor, fake: Tensor) -> Tensor:
        """Distances [N] of images [N, 1 or 3, H, W] in [-1, 1]; gray becomes three equal channels.

        Raises:
            ValueError: the samples are no such images, or too small for the network.
            FileNotFoundError: the weights are missing, and no download is allowed.
            RuntimeError: they cannot be downloaded, or the file holds others.
        """
        least = SMALLEST[self.kind]
        if real.ndim != 4 or real.shape[1] not in (1, 3) or min(real.shape[2:]) < least:
            raise ValueError(
                f"LPIPS with {self.kind} takes images [N, 1 or 3, H, W] of at least {least} pixels a side, "
                f"not {list(real.shape)}: choose another network or distance."
            )
        if self.network is None:
            self.network = self.read()  # frozen, and always in evaluation mode
        fake, real = (to_float32(side).expand(-1, 3, -1, -1).clamp(-1, 1) for side in (fake, real))
        with full_float32(real.device):
            distance: Tensor = self.network.to(real.device)(fake, real)
        return distance.flatten(1).mean(1)

    def read(self) -> nn.Module:
        """The network with its weights; see `forward`."""
        name = WEIGHTS[self.kind].url.rpartition("/")[2]
        path = Path(torch.hub.get_dir()) / "checkpoints" / name
        if not (self.download or path.is_file()):
            raise FileNotFoundError(
                f"No weights of {self.kind} at {path}: put torchvision's file there, or allow the download "
                "(litgan evaluate --download)."
            )
        try:
            with one_at_a_time(path.parent):  # other ranks wait for the one that downloads
                network: nn.Module = LearnedPerceptualImagePatchSimilarity(self.kind).net
        except UNUSABLE as error:
            raise RuntimeError(
                f"LPIPS has no weights of {self.kind} ({first_line(error)}): put torchvision's file at "
                f"{path}, or leave LPIPS out."
            ) from error
        return network
