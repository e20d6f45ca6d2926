"""Self-attention over the positions of feature maps, as in SAGAN, Zhang et al. 2019."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d


class SelfAttention(nn.Module):
    """Residual self-attention over all positions of maps [B, C, H, W]; Zhang et al. 2019, eq. 1 to 3.

        y_j = x_j + gamma * W_o sum_i softmax_i(<W_q x_j, W_k x_i>) W_v x_i

    gamma starts at 0, so the network learns local structure first. As in the authors' code, queries and keys
    have C / 8 channels, values C / 2, and keys and values are max-pooled to half the side. The softmax is
    explicit because fused attention kernels have no second derivative, which R1 needs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, narrow, kernel_size=1, bias=False)
        self.key = nn.Conv2d(channels, narrow, kernel_size=1, bias=False)
        self.value = nn.Conv2d(channels, half, kernel_size=1, bias=False)
        self.output = nn.Conv2d(half, channels, kernel_size=1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        queries = self.query(maps).flatten(2)  # [B, C/8, HW]
        keys = max_pool2d(self.key(maps), 2).flatten(2)  # [B, C/8, HW/4]
        values = max_pool2d(self.value(maps), 2).flatten(2)  # [B, C/2, HW/4]
        weights = torch.softmax(queries.transpose(1, 2) @ keys, dim=2)  # [B, HW, HW/4]
        attended = (values @ weights.transpose(1, 2)).unflatten(2, maps.shape[2:])
        return maps + self.gamma * self.output(attended)


def attention_index(resolution: int, resolutions: Sequence[int], owner: nn.Module) -> int | None:
    """Index of the block whose output has this resolution; None if `resolution` is 0 (no attention).

    Raises ValueError: no block has it.
    """
    if not resolution:
        return None
    if resolution not in resolutions:
        raise ValueError(
            f"{type(owner).__name__} has no maps of side {resolution} for attention: "
            f"set attention to 0 (none) or to one of {sorted(resolutions)}."
        )
    return resolutions.index(resolution)
