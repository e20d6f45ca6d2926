"""R3GAN, Huang et al. 2024, "The GAN is dead; long live the GAN! A modern GAN baseline" (NeurIPS), section 3.

Residual networks of grouped convolutions in inverted bottlenecks, without normalization: branches start at
zero (Fixup, Zhang et al. 2019), resampling is bilinear, and images begin and end at a learned 4 x 4 basis.
Made for `losses.Relativistic` with `penalties.R1` and `penalties.R2`. The defaults are the paper's for 32 x
32 (CIFAR-10).

One entry of `widths` is one stage at one resolution, 4 x 4 included. Generator and discriminator mirror each
other: a recipe gives the lists of one in reverse for the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from litgan.networks.convolutions import FilterFunction, GroupedConv2d
from litgan.networks.layers import SLOPE, check_input, check_widths, image_side, to_logits

BASE = 4  # side of the maps at the basis


class Blur(nn.Module):
    """Maps [B, C, R, R] under [1, 2, 1] / 4 in both directions, zero beyond the border."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", torch.outer(line, line)[None, None], persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        return FilterFunction.apply(maps, self.kernel, 1)


def upsample(inputs: int, outputs: int) -> nn.Sequential:
    """A layer [B, inputs, R, R] -> [B, outputs, 2R, 2R], bilinear: pixels are repeated, then blurred.

    The 1 x 1 convolution, used where the width changes, commutes with that and comes first, at a quarter of
    the cost.
    """
    resample = [nn.Upsample(scale_factor=2, mode="nearest"), Blur()]
    return nn.Sequential(*change_width(inputs, outputs), *resample)


def downsample(inputs: int, outputs: int) -> nn.Sequential:
    """A layer [B, inputs, 2R, 2R] -> [B, outputs, R, R], the transpose of `upsample` but for its scale."""
    return nn.Sequential(Blur(), nn.AvgPool2d(2), *change_width(inputs, outputs))


def change_width(inputs: int, outputs: int) -> list[nn.Module]:
    """A 1 x 1 convolution where the width changes, else nothing."""
    return [nn.Conv2d(inputs, outputs, kernel_size=1, bias=False)] if inputs != outputs else []


class ResidualBlock(nn.Module):
    """Maps [B, C, R, R] plus a branch: 1 x 1, leaky ReLU, grouped 3 x 3, leaky ReLU, 1 x 1.

    The grouped convolution is the cheapest and has the most channels, `expansion` * C. Only layers before an
    activation have biases.
    """

    def __init__(self, width: int, cardinality: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * width
        self.expand = nn.Conv2d(width, hidden, kernel_size=1)
        self.mix = GroupedConv2d(hidden, hidden, kernel_size=3, groups=cardinality)
        self.project = nn.Conv2d(hidden, width, kernel_size=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        branch = leaky_relu(self.expand(maps), SLOPE)
        return maps + self.project(leaky_relu(self.mix(branch), SLOPE))


class GenerativeBasis(nn.Module):
    """Vectors [B, inputs] to maps [B, width, 4, 4]: a learned map per channel, scaled by a linear layer."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(1, width, BASE, BASE))
        self.linear = nn.Linear(inputs, width, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        scales = self.linear(vectors)
        return self.basis.to(scales.dtype) * scales[:, :, None, None]


class DiscriminativeBasis(nn.Module):
    """Maps [B, width, 4, 4] to vectors [B, outputs]: products with the basis, then a linear layer."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.basis = nn.Parameter(torch.randn(1, width, BASE, BASE) / BASE)
        self.linear = nn.Linear(width, outputs, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return to_logits(self.linear, (maps * self.basis).sum((2, 3)))


def init_residual_weights(network: nn.Module) -> None:
    """Fixup, Zhang et al. 2019, section 3, for branches of m = 3 layers: identities that are free to grow.

    A branch's last layer is zero. Its others keep the mean square through leaky ReLU, He et al. 2015, times
    L^(-1 / (2m - 2)) with L the number of blocks. All other layers are N(0, 1 / fan-in), biases zero.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.normal_(layer.weight, 0.0, layer.weight[0].numel() ** -0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    blocks = [layer for layer in network.modules() if isinstance(layer, ResidualBlock)]
    gain = (2 / (1 + SLOPE**2)) ** 0.5 * len(blocks) ** -0.25
    for block in blocks:
        with torch.no_grad():
            block.expand.weight *= gain
            block.mix.weight *= gain
        nn.init.zeros_(block.project.weight)


def residual_stages(
    widths: Sequence[int], cardinalities: Sequence[int], blocks: Sequence[int], expansion: int
) -> list[nn.Sequential]:
    """The residual blocks of each stage."""
    return [
        nn.Sequential(*(ResidualBlock(width, cardinality, expansion) for _ in range(count)))
        for width, cardinality, count in zip(widths, cardinalities, blocks, strict=True)
    ]


def check_stages(
    sample_shape: Sequence[int],
    widths: Sequence[int],
    cardinalities: Sequence[int],
    blocks: Sequence[int],
    expansion: int,
    owner: nn.Module,
) -> tuple[int, ...]:
    """The widths as a tuple; ValueError unless they fit the shape and the other options fit them."""
    name, side = type(owner).__name__, image_side(sample_shape, owner)
    widths = check_widths(widths, owner)
    stages = (side // BASE).bit_length()
    if len(widths) != stages:
        raise ValueError(
            f"{name} has a stage at each of the {stages} resolutions from {BASE} to {side}, but widths has "
            f"{len(widths)} entries: give {stages}."
        )
    for option, numbers in (("cardinalities", cardinalities), ("blocks", blocks)):
        if len(numbers) != stages or any(number < 1 for number in numbers):
            raise ValueError(
                f"{name} has {option} {list(numbers)}: give one number of at least 1 for each of the "
                f"{stages} stages."
            )
    if expansion < 1:
        raise ValueError(f"{name} has expansion {expansion}: give a factor of at least 1.")
    for width, cardinality in zip(widths, cardinalities, strict=True):
        if expansion * width % cardinality:
            raise ValueError(
                f"{name} cannot cut {expansion} * {width} channels into {cardinality} groups: give "
                "cardinalities that divide expansion times their width."
            )
    return widths


class R3GANGenerator(nn.Module):
    """Latents [B, latent_dim] to images [B, C, R, R], not bounded: the paper's generator ends linearly.

    The basis gives maps of 4 x 4, each further stage is upsampled, and a 1 x 1 convolution gives the image.

    Args:
        sample_shape: [C, R, R], R a power of two.
        num_classes: 0 for an unconditional generator, which ignores labels.
        latent_dim: Length of the latents.
        widths: Channels of each stage, from 4 x 4 upwards: log2(R) - 1 entries.
        cardinalities: Groups of each stage's 3 x 3 convolutions.
        blocks: Residual blocks of each stage.
        expansion: Channels of the 3 x 3 convolutions, in widths.
        embedding_dim: Length of the class embedding, which is concatenated to the latents.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        latent_dim: int = 64,
        widths: Sequence[int] = (768, 768, 768, 768),
        cardinalities: Sequence[int] = (96, 96, 96, 96),
        blocks: Sequence[int] = (2, 2, 2, 2),
        expansion: int = 2,
        embedding_dim: int = 64,
    ) -> None:
        super().__init__()
        widths = check_stages(sample_shape, widths, cardinalities, blocks, expansion, self)
        self.num_classes, self.latent_dim = num_classes, latent_dim
        self.embed = nn.Embedding(num_classes, embedding_dim) if num_classes else None
        self.basis = GenerativeBasis(latent_dim + (embedding_dim if num_classes else 0), widths[0])
        self.upsamples = nn.ModuleList([nn.Identity(), *(upsample(a, b) for a, b in pairwise(widths))])
        self.stages = nn.ModuleList(residual_stages(widths, cardinalities, blocks, expansion))
        self.head = nn.Conv2d(widths[-1], sample_shape[0], kernel_size=1, bias=False)
        init_residual_weights(self)
        if self.embed is not None:  # as a linear layer of one-hot labels, whose fan-in is num_classes
            nn.init.normal_(self.embed.weight, 0.0, num_classes**-0.5)

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, latents, labels)
        if self.embed is not None:
            latents = torch.cat([latents, self.embed(labels)], dim=1)
        maps = self.basis(latents)
        for upsample, stage in zip(self.upsamples, self.stages, strict=True):
            maps = stage(upsample(maps))
        return self.head(maps)


class R3GANDiscriminator(nn.Module):
    """Images [B, C, R, R] to logits [B, 1].

    A 1 x 1 convolution of the image, stages with downsampling between them, the basis. With classes the basis
    gives vectors v(x) of the last stage's width, and the logit is <embed(y), v(x)>, the projection of Miyato
    & Koyama 2018 without its unconditional term.

    Args:
        sample_shape: [C, R, R], R a power of two.
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        widths: Channels of each stage, from the image downwards to 4 x 4: log2(R) - 1 entries.
        cardinalities: As in `R3GANGenerator`, from the image downwards.
        blocks: As in `R3GANGenerator`, from the image downwards.
        expansion: As in `R3GANGenerator`.
    """

    uses_batch_statistics = False

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        widths: Sequence[int] = (768, 768, 768, 768),
        cardinalities: Sequence[int] = (96, 96, 96, 96),
        blocks: Sequence[int] = (2, 2, 2, 2),
        expansion: int = 2,
    ) -> None:
        super().__init__()
        widths = check_stages(sample_shape, widths, cardinalities, blocks, expansion, self)
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        self.extract = nn.Conv2d(sample_shape[0], widths[0], kernel_size=1, bias=False)
        self.stages = nn.ModuleList(residual_stages(widths, cardinalities, blocks, expansion))
        self.downsamples = nn.ModuleList([*(downsample(a, b) for a, b in pairwise(widths)), nn.Identity()])
        self.basis = DiscriminativeBasis(widths[-1], widths[-1] if num_classes else 1)
        self.embed = nn.Embedding(num_classes, widths[-1]) if num_classes else None
        init_residual_weights(self)
        if self.embed is not None:  # as the generator's; the product over the width then keeps its size
            nn.init.normal_(self.embed.weight, 0.0, (num_classes * widths[-1]) ** -0.5)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        maps = self.extract(samples)
        for stage, downsample in zip(self.stages, self.downsamples, strict=True):
            maps = downsample(stage(maps))
        vectors = self.basis(maps)
        return vectors if self.embed is None else (self.embed(labels) * vectors).sum(1, keepdim=True)
