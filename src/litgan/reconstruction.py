"""Terms of the generator's loss that compare each fake sample with its real one.

The update minimizes  adversarial_weight * adversarial loss + sum of weight * term.  Samples are those before
augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from litgan.losses import to_float32
from litgan.penalties import Context, Reconstruction
from litgan.schedules import Schedule


class L1(Reconstruction):
    """|x - G(c)|, mean over a sample's values: Isola et al. 2017 (pix2pix), eq. 3, with weight 100."""

    name = "l1"

    def __call__(self, context: Context) -> Tensor:
        return difference(context).abs().mean(1)


class L2(Reconstruction):
    """(x - G(c))^2, mean over a sample's values."""

    name = "l2"

    def __call__(self, context: Context) -> Tensor:
        return difference(context).square().mean(1)


class Charbonnier(Reconstruction):
    """sqrt((x - G(c))^2 + 0.001^2), mean over a sample's values: Lai et al. 2017 (LapSRN), section 3.3."""

    name = "charbonnier"

    def __call__(self, context: Context) -> Tensor:
        return (difference(context).square() + 1e-6).sqrt().mean(1)


class FeatureMatching(Reconstruction):
    """|D_i(x) - D_i(G(c))|, mean over the values of layer i, summed over layers: Wang et al. 2018, eq. 4.

    As in pix2pixHD (weight 10) and HiFi-GAN (2; Kong et al. 2020, eq. 5), of a discriminator with
    `features(samples, condition)`, activations of its layers. Both samples are augmented alike.
    """

    name = "feature_matching"

    def __call__(self, context: Context) -> Tensor:
        features = getattr(context.discriminator, "features", None)
        if features is None:
            raise ValueError(
                f"FeatureMatching compares activations, and {type(context.discriminator).__name__} has no "
                "method features(samples, condition): take another discriminator, or another term."
            )
        with torch.no_grad():
            wanted = features(*context.augmented(context.real, "fake"))
        pairs = zip(features(*context.augmented(context.fake, "fake")), wanted, strict=True)
        return torch.stack([(rows(fake) - rows(real)).abs().mean(1) for fake, real in pairs]).sum(0)


class Perceptual(Reconstruction):
    """Distance in the activations of a network: Zhang et al. 2018 (LPIPS), eq. 1, without learned weights.

    Activations are divided by their length over the channels, and the squared length of their difference is
    averaged over positions and summed over layers.

    Args:
        extractor: called with samples in their data's range, such as `litgan.metrics.Embedded`. It is
            frozen, and not a part of checkpoints.
        layers: names of its modules whose outputs are compared; its own output if left out.

    Raises:
        ValueError: there is no such layer.
    """

    name = "perceptual"

    def __init__(
        self, extractor: nn.Module, weight: float | Schedule = 1.0, layers: Sequence[str] = ()
    ) -> None:
        super().__init__(weight)
        known = dict(extractor.named_modules())
        if unknown := [layer for layer in layers if layer not in known]:
            some = ", ".join(list(known)[1:9])
            raise ValueError(
                f"Perceptual finds no layer {unknown[0]!r} in its extractor: give some of {some}."
            )
        self.extractor = extractor.requires_grad_(False).eval()
        self.parts = [known[layer] for layer in layers] or [extractor]

    def __call__(self, context: Context) -> Tensor:
        with torch.no_grad():
            wanted = self.activations(context.real)
        pairs = zip(self.activations(context.fake), wanted, strict=True)
        distances = [(fake - real).square().sum(1, keepdim=True) for fake, real in pairs]
        return torch.stack([distance.flatten(1).mean(1) for distance in distances]).sum(0)

    def activations(self, samples: Tensor) -> list[Tensor]:
        """Those of each layer [B, C, ...], of unit length over C."""
        outputs: list[Tensor] = []
        handles = [
            part.register_forward_hook(lambda _part, _inputs, output: outputs.append(output))
            for part in self.parts
        ]
        try:
            self.extractor.to(samples.device)(to_float32(samples))
        finally:
            for handle in handles:
                handle.remove()
        return [nn.functional.normalize(to_float32(one), dim=1, eps=1e-10) for one in outputs]


class Distance(Reconstruction):
    """Any distance of pairs.

    Args:
        distance: called with `real=` and `fake=`, it returns [B], as `litgan.metrics.LPIPS` does. It is
            frozen, and not a part of checkpoints.
    """

    name = "distance"

    def __init__(self, distance: nn.Module, weight: float | Schedule = 1.0) -> None:
        super().__init__(weight)
        self.distance = distance.requires_grad_(False).eval()

    def __call__(self, context: Context) -> Tensor:
        value: Tensor = self.distance.to(context.fake.device)(real=context.real, fake=context.fake)
        return value


class AuxiliaryLoss(Reconstruction):
    """What a generator adds itself: its `auxiliary_loss`, a scalar or [B], of its last forward pass.

    For a codebook that is the commitment of van den Oord et al. 2017 (VQ-VAE), eq. 3.
    """

    name = "auxiliary"

    def __call__(self, context: Context) -> Tensor:
        loss: Tensor | None = getattr(context.generator, "auxiliary_loss", None)
        if loss is None:
            raise ValueError(
                f"AuxiliaryLoss finds no auxiliary_loss in {type(context.generator).__name__}: leave the "
                "term out, or let the generator set it in its forward pass."
            )
        return loss.expand(len(context.fake))


class Likelihood(Reconstruction):
    """-log p(x) of the real sample x, in nats: maximum likelihood.

    For generators that have a `log_likelihood(samples, latents, condition)`, [B], as those that draw symbol
    by symbol may.
    """

    name = "likelihood"

    def __call__(self, context: Context) -> Tensor:
        likelihood = getattr(context.generator, "log_likelihood", None)
        if likelihood is None:
            raise ValueError(
                f"Likelihood asks how probable real samples are, and {type(context.generator).__name__} has "
                "no method log_likelihood(samples, latents, condition): take another generator, or another "
                "term."
            )
        nats: Tensor = likelihood(context.real, context.latents(), context.condition)
        return -nats


def difference(context: Context) -> Tensor:
    """Fakes minus reals, [B, N], in at least float32."""
    return rows(context.fake) - rows(context.real)


def rows(samples: Tensor) -> Tensor:
    return to_float32(samples).flatten(1)
