"""What the architectures share: norms, class conditioning, initialization, and checks of their input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from litgan.condition import Condition

Activation = Literal["relu", "leaky_relu", "silu"]
Initialization = Literal["dcgan", "he", "glorot", "orthogonal"]
NormKind = Literal["none", "batch", "instance", "group", "pixel"]

SLOPE = 0.2  # of leaky ReLU below zero; Radford et al. 2016, section 3
GROUP = 16  # channels normalized together; Wu & He 2018, table 3
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, *TRANSPOSED)


def activation(kind: Activation) -> nn.Module:
    """A new activation layer, not in place: penalties differentiate twice through it."""
    check_choice("activation", kind, Activation)
    if kind == "leaky_relu":
        return nn.LeakyReLU(SLOPE)
    return nn.ReLU() if kind == "relu" else nn.SiLU()


def check_choice(option: str, given: object, choices: Any) -> None:
    """Raises ValueError if an option is none of its choices, a `Literal`."""
    if given not in (known := get_args(choices)):
        raise ValueError(f"There is no {option} {given!r}: choose one of {', '.join(known)}.")


class PixelNorm(nn.Module):
    """Scales the channels at each position to root mean square 1; Karras et al. 2018, section 4.2."""

    def forward(self, maps: Tensor) -> Tensor:
        wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
        return (wide * wide.square().mean(1, keepdim=True).add(1e-8).rsqrt()).to(maps.dtype)


def norm_layer(kind: NormKind, channels: int, *, affine: bool) -> nn.Module:
    """A layer that normalizes maps [B, C, H, W]; with `affine` all but "pixel" learn gains and biases."""
    check_choice("norm", kind, NormKind)
    if kind == "batch":
        return nn.BatchNorm2d(channels, affine=affine)
    if kind == "instance":
        return nn.InstanceNorm2d(channels, affine=affine)
    if kind == "group":
        return nn.GroupNorm(math.gcd(channels, max(1, channels // GROUP)), channels, affine=affine)
    return PixelNorm() if kind == "pixel" else nn.Identity()


class Norm(nn.Module):
    """Normalizes feature maps [B, C, H, W]; with classes, each class has its own gains and biases.

    Class-conditional batch norm is de Vries et al. 2017; the other kinds get gains and biases alike.

    Args:
        kind: "none", "batch", "instance", "group" (of about 16 channels) or "pixel".
        channels: C.
        num_classes: 0 for gains and biases that all samples share ("none" and "pixel" then have none).
        gain_std: gains start at N(1, gain_std^2). Radford's code has 0.02, by which classes differ from the
            first step on; Miyato's 0.
    """

    def __init__(self, kind: NormKind, channels: int, num_classes: int = 0, gain_std: float = 0.02) -> None:
        super().__init__()
        shared = num_classes == 0
        self.norm = norm_layer(kind, channels, affine=shared)
        self.gain = None if shared else nn.Embedding(num_classes, channels)
        self.bias = None if shared else nn.Embedding(num_classes, channels)
        gain = getattr(self.norm, "weight", None) if self.gain is None else self.gain.weight
        if gain is not None:
            nn.init.normal_(gain, 1.0, gain_std)
        if self.bias is not None:
            nn.init.zeros_(self.bias.weight)

    def forward(self, maps: Tensor, labels: Tensor | None = None) -> Tensor:
        maps = self.norm(maps)
        if self.gain is None or self.bias is None:
            return maps
        gain, bias = self.gain(labels).to(maps.dtype), self.bias(labels).to(maps.dtype)
        return torch.addcmul(bias[:, :, None, None], maps, gain[:, :, None, None])


class Projection(nn.Module):
    """The discriminator's last layer: features [B, F] to logits [B, 1].

    With classes: psi(phi(x)) + <embed(y), phi(x)>, with phi(x) the features and psi linear (the projection
    discriminator, Miyato & Koyama 2018, eq. 3).
    """

    def __init__(self, features: int, num_classes: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.embed = nn.Embedding(num_classes, features) if num_classes else None
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, 0.0, features**-0.5)

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        logits = to_logits(self.linear, features)
        if self.embed is None:
            return logits
        return logits + (self.embed(labels) * features).sum(1, keepdim=True)


def to_logits(layer: nn.Module, features: Tensor) -> Tensor:
    """A discriminator's last layer in the precision of its weights: bf16's 8 bits are few for a logit."""
    with without_autocast(features.device):
        return layer(features.to(next(layer.parameters()).dtype))


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Autocast is off in here. There is none for "meta", where networks are sketched."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def init_weights(network: nn.Module, scheme: Initialization, gain: float = 1.0) -> None:
    """Draws the weights of all linear and convolution layers anew and zeroes their biases.

    "dcgan" is N(0, 0.02), Radford et al. 2016, section 3: for batch norm, which undoes the scale. "he" is
    N(0, 2 / fan-in), He et al. 2015, eq. 10: the signal keeps its size without norms. "glorot" is uniform
    with variance 2 / (fan-in + fan-out), Glorot & Bengio 2010, eq. 16. "orthogonal" makes the rows of a
    weight matrix, or its columns if they are fewer, orthonormal, Saxe et al. 2014. `gain` multiplies the last
    two.
    """
    check_choice("initialization", scheme, Initialization)
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS)):
            fan_in = layer.weight[0].numel()
            if isinstance(layer, TRANSPOSED):  # an output meets k / stride taps a side
                fan_in = layer.weight[:, 0].numel() // math.prod(layer.stride)
            if scheme == "glorot":
                nn.init.xavier_uniform_(layer.weight, gain)
            elif scheme == "orthogonal":
                nn.init.orthogonal_(layer.weight, gain)
            else:
                nn.init.normal_(layer.weight, 0.0, 0.02 if scheme == "dcgan" else (2 / fan_in) ** 0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def add_spectral_norm(network: nn.Module, *, embeddings: bool = True) -> None:
    """Divides each weight matrix of the network by its largest singular value; Miyato et al. 2018.

    That includes class embeddings unless `embeddings` is false: a generator's signal does not pass through
    the gains of its norms. Initialize first: the power iteration starts from the weights at this point.
    """
    kinds = (nn.Linear, *CONVOLUTIONS, *((nn.Embedding,) if embeddings else ()))
    for layer in list(network.modules()):
        if isinstance(layer, kinds):
            spectral_norm(layer)


def spectral_norm(layer: Any) -> None:
    """Divides the weight of one layer by its largest singular value."""
    norm = SpectralNorm(layer.weight, dim=int(isinstance(layer, TRANSPOSED)))
    parametrize.register_parametrization(layer, "weight", norm)


class SpectralNorm(parametrizations._SpectralNorm):
    """torch's, but for autocast: on CUDA, unlike on a CPU, that would compute the power iteration in bf16."""

    def forward(self, weight: Tensor) -> Tensor:
        with without_autocast(weight.device):
            return super().forward(weight)

    @torch.no_grad()
    def _power_method(self, weight_mat: Tensor, n_power_iterations: int) -> None:
        # Products of matrices: Inductor may compute one with a vector again in the backward pass, from a
        # buffer that the next forward pass has changed by then, which is an error.
        for _ in range(n_power_iterations):
            u = F.normalize(weight_mat @ self._v[:, None], dim=0, eps=self.eps)
            self._v.copy_(F.normalize(weight_mat.mT @ u, dim=0, eps=self.eps)[:, 0])
            self._u.copy_(u[:, 0])


def check_widths(widths: Sequence[int], owner: nn.Module, least: int = 0) -> tuple[int, ...]:
    """The widths as a tuple; ValueError where one is not positive, or if there are fewer than `least`."""
    name = type(owner).__name__
    if any(width < 1 for width in widths):
        raise ValueError(f"{name} has widths {list(widths)}: give numbers of at least 1.")
    if len(widths) < least:
        raise ValueError(f"{name} has {len(widths)} widths: give at least {least}.")
    return tuple(widths)


def image_side(sample_shape: Sequence[int], owner: nn.Module) -> int:
    """R of the shape [C, R, R]; ValueError unless it is one and R a power of two, 4 at least."""
    side = sample_shape[-1] if sample_shape else 0
    square = len(sample_shape) == 3 and sample_shape[1] == side
    if not square or side < 4 or side & (side - 1):
        raise ValueError(
            f"{type(owner).__name__} needs square images whose side is a power of two (4 or more), but the "
            f"samples' shape is {list(sample_shape)}: choose another resolution in the data's options."
        )
    return side


def image_geometry(sample_shape: Sequence[int], widths: Sequence[int], owner: nn.Module) -> tuple[int, int]:
    """Channels and base resolution: the side of the maps after halving the image once per width.

    Raises ValueError unless `sample_shape` is [C, R, R] with R a power of two and the base is at least 2.
    """
    name, resolution = type(owner).__name__, image_side(sample_shape, owner)
    most = resolution.bit_length() - 2
    if not 1 <= len(widths) <= most:
        raise ValueError(
            f"{name} halves resolution {resolution} once per entry of widths, down to 2 at least, but widths "
            f"has {len(widths)} entries: give 1 to {most}."
        )
    return sample_shape[0], resolution >> len(widths)


def check_input(network: Any, given: Tensor, labels: Tensor | None) -> Tensor | None:
    """The labels that the network uses: None without classes, else integers [B].

    `given` are a generator's latents or a discriminator's samples. Only shapes and dtypes are read: reading
    values would make the host wait for the device.

    Raises ValueError: latents or samples have another shape than the network's, or labels are missing, or not
    one integer per sample.
    """
    check_shape(
        network, given, (network.latent_dim,) if hasattr(network, "latent_dim") else network.sample_shape
    )
    # Not len(), which would fix the batch size of an exported graph.
    return check_labels(network, labels, given.shape[0]) if network.num_classes else None


def check_shape(network: nn.Module, given: Tensor, shape: Sequence[int | str]) -> None:
    """Raises ValueError if latents or samples have not the shape [B, *shape]; a text stands for any size."""
    fits = len(given.shape) == 1 + len(shape) and all(
        isinstance(known, str) or size == known for size, known in zip(given.shape[1:], shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{type(network).__name__} was built for inputs {['B', *shape]} but got {list(given.shape)}: "
            "build it with the shape of this data."
        )


def check_labels(network: Any, labels: Tensor | None, count: int) -> Tensor:
    """Classes [count] of a network that is conditioned on them.

    Raises ValueError: labels are missing, or not one integer per sample.
    """
    name, classes = type(network).__name__, network.num_classes
    if labels is None:
        raise ValueError(f"{name} is conditioned on {classes} classes: pass labels [B].")
    if labels.shape != (count,) or labels.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"{name} got labels {list(labels.shape)} of {labels.dtype} for {count} samples: "
            f"pass one int64 label a sample, shape [{count}]."
        )
    return labels


def condition_channels(condition: Condition, owner: nn.Module) -> int:
    """Channels of `condition_maps`: n for n classes, C for a vector [C] or an image [C, H, W].

    Raises ValueError: the condition has another shape.
    """
    if isinstance(condition, int):
        return condition
    if len(condition) not in (1, 3):
        raise ValueError(
            f"{type(owner).__name__} is conditioned on classes, a vector [C] or an image [C, H, W], but the "
            f"condition's shape is {list(condition)}: choose another network, or another condition."
        )
    return condition[0]


def condition_maps(
    network: Any, condition: Tensor | None, count: int, size: Sequence[int] | None = None
) -> list[Tensor]:
    """The condition as maps [count, C, H, W], to be concatenated to others; no maps without a condition.

    A class is one-hot; a class and a vector are the same at all positions (Mirza & Osindero 2014). Of an
    image that has not the `size` (H, W) that is asked for the nearest pixels are taken.

    Raises ValueError: the condition is missing, or has not the shape that the network was built for.
    """
    known = network.condition
    if known == 0:
        return []
    if isinstance(known, int):
        labels = check_labels(network, condition, count)
        condition, known = (labels[:, None] == torch.arange(known, device=labels.device)).float(), (known,)
    wanted = ["B", *known] if len(known) == 1 else ["B", known[0], "H", "W"]
    if condition is None or condition.ndim != len(wanted) or condition.shape[:2] != (count, known[0]):
        given = "none" if condition is None else list(condition.shape)
        raise ValueError(
            f"{type(network).__name__} is conditioned on {wanted}, but got {given} for {count} samples: pass "
            "the condition that it was built for."
        )
    maps = condition[..., None, None] if condition.ndim == 2 else condition
    return [maps if size is None or maps.shape[2:] == size else F.interpolate(maps, size)]


def image_input(network: Any, latents: Tensor, condition: Tensor | None) -> Tensor:
    """What a generator from images to images gets: the condition, and each latent as one more channel.

    Latents are the same at all positions ("add z to input" of Zhu et al. 2017, BicycleGAN).

    Raises ValueError: latents or condition have another shape than the network's.
    """
    check_shape(network, latents, (network.latent_dim,))
    (maps,) = condition_maps(network, condition, latents.shape[0])
    if not network.latent_dim:
        return maps
    return torch.cat([maps, latents[:, :, None, None].expand(-1, -1, *maps.shape[2:])], 1)


def check_image_condition(
    sample_shape: Sequence[int], condition: Condition, owner: nn.Module, scale: int = 1
) -> tuple[int, ...]:
    """The shape of the condition.

    Raises ValueError: samples and condition are no images [C, H, W] of which the sample's sides are `scale`
    times the condition's.
    """
    shape = () if isinstance(condition, int) else tuple(condition)
    if len(shape) != 3 or tuple(sample_shape[1:]) != (scale * shape[1], scale * shape[2]):
        times = f"of {scale} times the sides" if scale > 1 else "of the same size"
        raise ValueError(
            f"{type(owner).__name__} makes images of images [C, H, W] {times}, but the samples' shape is "
            f"{list(sample_shape)} and the condition is {condition}: choose data of such pairs."
        )
    return shape


def pad_to_multiple(maps: Tensor, factor: int) -> Tensor:
    """Maps [B, C, H, W] whose last row and column are repeated until `factor` divides H and W."""
    height, width = maps.shape[2:]
    return F.pad(maps, (0, -width % factor, 0, -height % factor), mode="replicate")
