"""An autoregressive discriminator of text: one logit for each character, given those before it.

The gradient of an ordinary discriminator at a character is a linear approximation: it predicts the logit
after a small change of the character, and characters change only as a whole. Here each logit is linear in its
own character (and any function of the prefix), so its gradient holds the exact logit of every alternative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.networks.layers import check_input, check_widths, init_weights


class CausalBlock(nn.Module):
    """Residual block of two causal convolutions on maps [B, C, T]; position t depends on 0 to t alone.

    Dilated and causal as in van den Oord et al. 2016 (WaveNet), section 2.1, with a ReLU before each.
    """

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.padding = (kernel - 1) * dilation  # on the left
        self.conv1 = nn.Conv1d(width, width, kernel, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, kernel, dilation=dilation)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.conv1(F.pad(maps.relu(), (self.padding, 0)))
        return maps + self.conv2(F.pad(inner.relu(), (self.padding, 0)))


class CausalTextDiscriminator(nn.Module):
    """One-hot characters [B, alphabet_size, length] to one logit per character, [B, length].

    Logit t is <s(x_1 ... x_{t-1}), x_t>: a causal network maps the prefix to scores of all characters, and
    the one-hot x_t selects its own. Each logit thus classifies a prefix as real or fake; the loss is the mean
    over the logits. The gradient of logit t in x_t is the scores of all characters at that position.

    Args:
        sample_shape: (alphabet_size, length).
        num_classes: 0 for an unconditional discriminator, which ignores labels; else an embedding of the
            class is added to the maps at every position.
        width: Channels.
        kernel: Size of the convolutions' kernels.
        dilations: One block each. Scores depend on the 2 (kernel - 1) sum(dilations) + 1 characters before.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        width: int = 96,
        kernel: int = 3,
        dilations: Sequence[int] = (1, 2, 4),
    ) -> None:
        super().__init__()
        if len(sample_shape) != 2 or min(kernel, *dilations, 1) < 1:
            raise ValueError(
                f"{type(self).__name__} needs samples [alphabet_size, length], a kernel and dilations of at "
                f"least 1, not {list(sample_shape)}, {kernel} and {list(dilations)}: choose text as data, or "
                "such options."
            )
        check_widths([width], self)
        alphabet_size, length = sample_shape
        self.sample_shape, self.num_classes = (alphabet_size, length), num_classes
        self.char_embed = nn.Conv1d(alphabet_size, width, 1)
        self.class_embed = nn.Embedding(num_classes, width) if num_classes else None
        blocks = [CausalBlock(width, kernel, dilation) for dilation in dilations]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Conv1d(width, alphabet_size, 1)
        init_weights(self, "he")
        with torch.no_grad():  # all residual branches together at most double the variance
            for block in blocks:
                block.conv2.weight.mul_(len(blocks) ** -0.5)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        maps = self.char_embed(F.pad(samples[:, :, :-1], (1, 0)))
        if self.class_embed is not None:
            maps = maps + self.class_embed(labels).unsqueeze(2)
        scores = self.head(self.blocks(maps).relu())
        return (scores.to(torch.promote_types(scores.dtype, torch.float32)) * samples).sum(1)
