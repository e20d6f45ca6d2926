"""Residual 1-D convolutions over characters, after the language model of WGAN-GP.

Gulrajani et al. 2017, section 5.2: the generator outputs a distribution over the alphabet at each position;
the discriminator gets these distributions as fakes and one-hot vectors as reals. With straight-through
Gumbel-softmax (Jang et al. 2017, section 2.2) fakes are one-hot vectors too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.networks.layers import Projection, check_input, check_widths, init_weights
from litgan.schedules import Schedule, value_at

# strided, not pooled: the mean of two positions would lose their order
DOWNSAMPLE = partial(nn.Conv1d, kernel_size=2, stride=2)
UPSAMPLE = partial(nn.ConvTranspose1d, kernel_size=2, stride=2)
POINTWISE = partial(nn.Conv1d, kernel_size=1)


class ResidualBlock(nn.Module):
    """Residual block of two convolutions on maps [B, C, T], a ReLU before each."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv1d(width, width, kernel, padding=kernel // 2)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.conv2(self.conv1(maps.relu()).relu())


class TextGenerator(nn.Module):
    """Latents [B, latent_dim] to distributions over the alphabet, [B, alphabet_size, length].

    Args:
        sample_shape: (alphabet_size, length).
        num_classes: 0 for an unconditional generator; else an embedding of the class is added to the latents.
        latent_dim: Length of the latents.
        widths: Channels of each residual block; the paper has five blocks of 512.
        kernel: Size of the convolutions' kernels, an odd number.
        resample: Whether the number of positions doubles between two blocks. If not, all blocks have `length`
            positions, as in the paper, at a multiple of the cost.
        output: "softmax" gives probabilities. "gumbel" gives one-hot samples of them, whose gradient is
            that of softmax((logits + Gumbel noise) / temperature). The noise comes from further latents,
            alphabet_size * length of them: the attribute `latent_dim` counts these too.
        temperature: Of "gumbel": a number, or a schedule of `images_seen`.

    Raises:
        ValueError: An option is unknown or does not fit; in `forward`, as `layers.check_input`.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        latent_dim: int = 128,
        widths: Sequence[int] = (192, 128, 64),
        kernel: int = 3,
        resample: bool = True,
        output: Literal["softmax", "gumbel"] = "softmax",
        temperature: float | Schedule = 1.0,
    ) -> None:
        super().__init__()
        if output not in ("softmax", "gumbel"):
            raise ValueError(f"TextGenerator has no output {output!r}: choose softmax or gumbel.")
        alphabet_size, length, base_length = text_geometry(sample_shape, widths, kernel, resample, self)
        self.sample_shape, self.num_classes, self.output = (alphabet_size, length), num_classes, output
        noise_dim = alphabet_size * length if output == "gumbel" else 0
        self.code_dim, self.latent_dim = latent_dim, latent_dim + noise_dim
        self.temperature_schedule, self.base_length = temperature, base_length
        self.class_embed = nn.Embedding(num_classes, latent_dim) if num_classes else None
        self.base = nn.Linear(latent_dim, widths[0] * base_length)
        self.blocks = residual_stack(widths, kernel, UPSAMPLE if resample else POINTWISE)
        self.head = nn.Conv1d(widths[-1], alphabet_size, 1)
        init_residual_weights(self)
        self.step_schedule(0)

    def step_schedule(self, images_seen: int) -> None:
        """Sets the temperature that the schedule has after `images_seen` images."""
        self.temperature = value_at(self.temperature_schedule, images_seen)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, latents, labels)
        code, normal = latents[:, : self.code_dim], latents[:, self.code_dim :]
        if self.class_embed is not None:
            code = code + self.class_embed(labels)
        maps = self.base(code).unflatten(1, (-1, self.base_length))
        logits = self.head(self.blocks(maps).relu()).float()
        if self.output == "softmax":
            return logits.softmax(1)
        return straight_through(logits + gumbel(normal).view_as(logits), self.temperature)


class TextDiscriminator(nn.Module):
    """Distributions over the alphabet, [B, alphabet_size, length], to logits [B, 1].

    Conditional by projection (`layers.Projection`).

    Args:
        sample_shape: (alphabet_size, length).
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        widths: Channels of each residual block.
        kernel: Size of the convolutions' kernels, an odd number.
        resample: Whether the number of positions halves between two blocks.

    Raises:
        ValueError: An option does not fit; in `forward`, as `layers.check_input`.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        widths: Sequence[int] = (64, 128, 192),
        kernel: int = 3,
        resample: bool = True,
    ) -> None:
        super().__init__()
        alphabet_size, length, base_length = text_geometry(sample_shape, widths, kernel, resample, self)
        self.sample_shape, self.num_classes = (alphabet_size, length), num_classes
        self.char_embed = nn.Conv1d(alphabet_size, widths[0], 1)
        self.blocks = residual_stack(widths, kernel, DOWNSAMPLE if resample else POINTWISE)
        self.head = Projection(widths[-1] * base_length, num_classes)
        init_residual_weights(self)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        return self.head(self.blocks(self.char_embed(samples)).relu().flatten(1), labels)


def gumbel(normal: Tensor) -> Tensor:
    """Maps standard normal to standard Gumbel numbers: -log(-log(Phi(x))), for |x| up to 13."""
    normal = normal.float()
    tail = torch.special.erfc(normal.abs() * 0.5**0.5) / 2  # Phi(-|x|); log_ndtr has no Metal kernel
    return -torch.log(-torch.where(normal > 0, torch.log1p(-tail), tail.log()))


def straight_through(logits: Tensor, temperature: float) -> Tensor:
    """One-hot at the largest of the logits [B, A, T], with the gradient of softmax(logits / temperature)."""
    soft = (logits / temperature).softmax(1)
    hard = F.one_hot(logits.argmax(1), logits.shape[1]).transpose(1, 2).to(soft)
    return hard + (soft - soft.detach())


def residual_stack(
    widths: Sequence[int], kernel: int, resample_layer: Callable[[int, int], nn.Module]
) -> nn.Sequential:
    """One residual block per width; `resample_layer(inputs, outputs)` connects consecutive blocks."""
    layers: list[nn.Module] = [ResidualBlock(widths[0], kernel)]
    for inputs, outputs in pairwise(widths):
        layers += [resample_layer(inputs, outputs), ResidualBlock(outputs, kernel)]
    return nn.Sequential(*layers)


def init_residual_weights(network: nn.Module) -> None:
    """He initialization, scaled so that activations keep their variance through residual blocks.

    The last convolution of each block is divided by sqrt(number of blocks), so that all residual branches
    together at most double the variance. Resampling layers, which no ReLU precedes, are divided by sqrt(2).
    The head is not scaled down: a generator whose samples differ at initialization collapses to few modes
    less often than one that starts near the uniform distribution.
    """
    init_weights(network, "he")
    layers = dict(network.named_modules())
    count = sum(isinstance(layer, ResidualBlock) for layer in layers.values())
    with torch.no_grad():
        for name, layer in layers.items():
            if isinstance(layer, ResidualBlock):
                layer.conv2.weight.mul_(count**-0.5)
            elif isinstance(layer, (nn.Conv1d, nn.ConvTranspose1d)) and name.count(".") == 1:
                layer.weight.mul_(2**-0.5)


def text_geometry(
    sample_shape: Sequence[int], widths: Sequence[int], kernel: int, resample: bool, owner: nn.Module
) -> tuple[int, int, int]:
    """(alphabet_size, length, positions of the smallest maps); ValueError if an option does not fit."""
    check_widths(widths, owner)
    if len(sample_shape) != 2 or kernel % 2 == 0 or not widths:
        raise ValueError(
            f"{type(owner).__name__} needs samples [alphabet_size, length], an odd kernel and a width, not "
            f"{list(sample_shape)}, {kernel} and {list(widths)}: choose text as data, or such options."
        )
    factor = 2 ** (len(widths) - 1) if resample else 1
    if sample_shape[1] % factor:
        raise ValueError(
            f"{type(owner).__name__} halves {sample_shape[1]} characters {len(widths) - 1} times: give a "
            f"length that {factor} divides, fewer widths, or resample false."
        )
    return sample_shape[0], sample_shape[1], sample_shape[1] // factor
