"""Projected GAN: a discriminator on the features of a pretrained network.

Sauer et al. 2021, "Projected GANs converge faster". A frozen backbone computes feature maps at several
resolutions, fixed random convolutions mix their channels and resolutions (section 3.2), and each mixed map
has a small discriminator. Only these discriminators are trained.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from litgan.networks.layers import add_spectral_norm, check_input, to_logits

SLOPE = 0.2


class ProjectedDiscriminator(nn.Module):
    """Images [B, C, H, W] to logits [B, K], the concatenated logits of all discriminators.

    Args:
        sample_shape: [C, H, W].
        num_classes: 0 for an unconditional discriminator, which ignores labels.
        backbone: The pretrained network: "fashion" or "digits", which come with litgan; "torchvision:NAME",
            e.g. torchvision:efficientnet_b0; or "timm:NAME".
        depths: Number of its maps that are used, counted from the coarsest.
        widths: Channels of the mixed maps, fine to coarse.
        pretrained: Load the published weights of a torchvision or timm network, downloaded once.
        size: Side to which images are resized for such a network; 0 for no resizing.

    Raises:
        ValueError: No such backbone, too few maps in it, or widths that do not fit; in `forward`, as
            `layers.check_input`.
        RuntimeError: The backbone's weights cannot be downloaded.
    """

    uses_batch_statistics = False  # the backbone's batch norm stays in evaluation mode

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        *,
        backbone: str = "fashion",
        depths: int = 2,
        widths: Sequence[int] = (64, 128),
        pretrained: bool = True,
        size: int = 0,
    ) -> None:
        super().__init__()
        self.sample_shape, self.num_classes, self.size = tuple(sample_shape), num_classes, size
        probe = torch.zeros(1, *sample_shape)
        with torch.device("cpu"):  # loads weights even if the other layers are on meta
            self.backbone = freeze_weights(build_backbone(backbone, pretrained))
        self.backbone.to(probe.device)
        with torch.no_grad():
            maps = self.backbone(self.resize(probe))
        if not 1 <= depths <= len(maps) or len(widths) != depths:
            raise ValueError(
                f"ProjectedDiscriminator has depths {depths} of {len(maps)} maps of {backbone} and widths "
                f"{list(widths)}: give 1 to {len(maps)} depths, and a width for each."
            )
        self.depths = depths
        channels, sides = zip(*((each.shape[1], min(each.shape[2:])) for each in maps[-depths:]), strict=True)
        self.channel_mixing = freeze_weights(
            nn.ModuleList(nn.Conv2d(*pair, 1) for pair in zip(channels, widths, strict=True))
        )
        finer = zip(widths[1:], widths[:-1], strict=True)
        self.scale_mixing = freeze_weights(nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in finer))
        self.discriminators = nn.ModuleList(
            PatchDiscriminator(width, num_classes, side) for width, side in zip(widths, sides, strict=True)
        )

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        labels = check_input(self, samples, labels)
        mixed = self.mix_maps(self.backbone(self.resize(samples))[-self.depths :])
        pairs = zip(self.discriminators, mixed, strict=True)
        return torch.cat([discriminator(maps, labels) for discriminator, maps in pairs], 1)

    def resize(self, samples: Tensor) -> Tensor:
        """Images at the input size of the backbone."""
        if not self.size or samples.shape[-1] == self.size:
            return samples
        return F.interpolate(samples, (self.size, self.size), mode="bilinear", antialias=True)

    def mix_maps(self, maps: list[Tensor]) -> list[Tensor]:
        """Mixes channels by random 1 x 1 convolutions and adds coarser maps to finer ones; fine to coarse."""
        mixed = [conv(output) for conv, output in zip(self.channel_mixing, maps, strict=True)]
        for place in range(len(mixed) - 1, 0, -1):
            finer = mixed[place - 1]
            coarse = F.interpolate(mixed[place], finer.shape[-2:], mode="bilinear")
            mixed[place - 1] = finer + self.scale_mixing[place - 1](coarse)
        return mixed

    def train(self, mode: bool = True) -> ProjectedDiscriminator:
        """Sets the mode of all but the backbone, which stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self


class PatchDiscriminator(nn.Module):
    """Maps [B, width, H, W] to logits [B, K], one per position after downsampling to a side below 8.

    All layers have spectral norm. With classes, the logit at each position adds the product of its features
    and the class embedding. Maps whose smaller `side` is below 8 need no downsampling layer.
    """

    def __init__(self, width: int, num_classes: int, side: int) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(width, width, 4, stride=2, padding=1) if side >= 8 else None
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, 1, 1)
        self.embed = nn.Embedding(num_classes, width) if num_classes else None
        add_spectral_norm(self)

    def forward(self, maps: Tensor, labels: Tensor | None) -> Tensor:
        while self.downsample is not None and min(maps.shape[-2:]) >= 8:
            maps = F.leaky_relu(self.downsample(maps), SLOPE)
        maps = F.leaky_relu(self.last(maps), SLOPE)
        logits = to_logits(self.head, maps)
        if self.embed is not None:
            logits = logits + (self.embed(labels)[:, :, None, None] * maps).sum(1, keepdim=True)
        return logits.flatten(1)


class Backbone(nn.Module):
    """A sequence of layers; returns the last map of each resolution below the image's, fine to coarse.

    Args:
        layers: Applied one after the other.
        mean: Channel means with which the network's inputs in [0, 1] are normalized; None for inputs in
            [-1, 1].
        std: Channel standard deviations, as `mean`.
        channels: 3, or 1 for a network of gray images.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layers: Sequence[nn.Module],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.layers, self.channels = nn.ModuleList(layers), channels
        scale = torch.full((1, channels, 1, 1), 0.5)
        center = scale.clone()
        if mean is not None and std is not None:
            center, scale = (torch.tensor(list(values)).view(1, -1, 1, 1) for values in (mean, std))
        self.register_buffer("mean", center, persistent=False)
        self.register_buffer("std", scale, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        inputs = images.mean(1, keepdim=True) if self.channels == 1 else images.expand(-1, 3, -1, -1)
        maps = (inputs / 2 + 0.5 - self.mean) / self.std
        outputs, side = [], maps.shape[-1]
        for layer in self.layers:
            after = layer(maps)
            if after.shape[-1] < maps.shape[-1] and maps.shape[-1] < side:
                outputs.append(maps)
            maps = after
        return [*outputs, maps]


class TimmBackbone(Backbone):
    """A timm network created with `features_only`, which returns a list of maps."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.layers[0]((images.expand(-1, 3, -1, -1) / 2 + 0.5 - self.mean) / self.std))


def build_backbone(name: str, pretrained: bool = True) -> Backbone:
    """The backbone of that name, see `ProjectedDiscriminator`.

    Raises:
        ValueError: There is no such backbone.
        RuntimeError: Its weights cannot be downloaded.
    """
    source, _, which = name.rpartition(":")
    if not source and name in ("fashion", "digits"):
        # imported here, for networks do not depend on metrics otherwise
        from litgan.metrics.extractors import Classifier, load_extractor

        classifier = load_extractor(name)
        assert isinstance(classifier, Classifier)
        return Backbone(list(classifier.trunk), channels=1)
    if source not in ("torchvision", "timm"):
        raise ValueError(
            f"There is no backbone {name!r}: give fashion, digits, torchvision:NAME or timm:NAME."
        )
    try:
        build = _torchvision_backbone if source == "torchvision" else _timm_backbone
        return build(which, pretrained)
    except ImportError as error:
        raise ValueError(f"The backbone {name} needs the package {source}: pip install {source}.") from error
    except OSError as error:  # URLError is one
        raise RuntimeError(
            f"The weights of {name} cannot be downloaded ({error}): connect once, or take the backbone "
            "fashion or digits, which come with litgan."
        ) from error


def _torchvision_backbone(name: str, pretrained: bool) -> Backbone:
    models = importlib.import_module("torchvision.models")
    if name not in models.list_models(models):  # classifiers only: detection models download backbones
        raise ValueError(f"torchvision has no network {name!r}: see torchvision.models.list_models().")
    weights: Any = models.get_model_weights(name).DEFAULT if pretrained else None
    network = models.get_model(name, weights=weights)
    layers = getattr(network, "features", None) or [
        layer for key, layer in network.named_children() if key not in ("avgpool", "fc")
    ]
    return Backbone(list(layers), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def _timm_backbone(name: str, pretrained: bool) -> Backbone:
    timm = importlib.import_module("timm")
    try:
        network = timm.create_model(name, pretrained=pretrained, features_only=True)
    except RuntimeError as error:
        raise ValueError(f"timm has no network {name!r} with maps: see timm.list_models().") from error
    return TimmBackbone([network], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def freeze_weights(module: Any) -> Any:
    """Disables gradients of the weights, and sets evaluation mode, which fixes running statistics."""
    return module.requires_grad_(False).eval()
