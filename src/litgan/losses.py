"""Adversarial losses: pure functions of the discriminator's logits, one value per sample.

In the equations D(x) is a logit, not a probability; E over the batch is left to the training step.
softplus(t) = log(1 + exp(t)) neither overflows nor loses the gradient as `log(sigmoid(t) + 1e-8)` does.
Low-precision logits are converted to float32 first.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus


def to_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32 if it was narrower, as it is otherwise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class AdversarialLoss(ABC):
    """The losses of both networks: `discriminator` and `generator` map logits [B, K] to losses [B].

    K > 1 for patch or multi-scale discriminators. A subclass gives the terms of single logits; their mean
    over K is the sample's loss. Both methods raise ValueError if the logits are not of one shape [B, K].
    """

    relativistic: bool = False  # real i is compared with fake i: the generator's loss needs real logits too
    counts: tuple[int, ...] = ()  # see `sum_of_means`

    def sum_of_means(self, counts: Sequence[int]) -> AdversarialLoss:
        """This loss for several discriminators in one, whose logits are next to each other.

        `counts` are the numbers of logits of each. The loss is the sum over the discriminators of the mean of
        their terms, as in Wang et al. 2018 (pix2pixHD), eq. 3, and Kong et al. 2020 (HiFi-GAN), eq. 7 and 8;
        the mean over all K, which is the loss without counts, weighs a discriminator by its number of logits.
        A GAN takes them from the attribute `logit_counts` of its discriminator.
        """
        if not counts:
            return self
        several = copy.copy(self)
        several.counts = tuple(counts)
        return several

    def discriminator(self, *, real: Tensor, fake: Tensor) -> Tensor:
        """The discriminator's loss [B] of real and fake logits [B, K]."""
        self._check(real=real, fake=fake)
        return self._reduce(self.discriminator_terms(real=to_float32(real), fake=to_float32(fake)))

    def generator(self, *, real: Tensor | None = None, fake: Tensor) -> Tensor:
        """The generator's loss [B] of fake logits [B, K]; `real` is read only if `relativistic` is true."""
        if not self.relativistic:
            real = None
        elif real is None:
            raise ValueError(f"{self!r} compares fake with real: its generator's loss needs real logits too.")
        self._check(real=real, fake=fake)
        real = None if real is None else to_float32(real)
        return self._reduce(self.generator_terms(real=real, fake=to_float32(fake)))

    @abstractmethod
    def discriminator_terms(self, *, real: Tensor, fake: Tensor) -> Tensor:
        """The terms [B, K] of the discriminator's loss, of logits in at least float32."""

    @abstractmethod
    def generator_terms(self, *, real: Tensor | None, fake: Tensor) -> Tensor:
        """The terms [B, K] of the generator's loss; `real` is a tensor exactly if `relativistic` is true."""

    def _check(self, *, real: Tensor | None, fake: Tensor) -> None:
        shapes = [tuple(logits.shape) for logits in (real, fake) if logits is not None]
        if len(shapes[0]) != 2 or shapes[0] != shapes[-1]:
            given = " and ".join(map(str, shapes))
            raise ValueError(f"{self!r} takes logits of one shape [B, K], not {given}: let D return [B, K].")
        if self.counts and sum(self.counts) != shapes[0][1]:
            raise ValueError(
                f"The discriminator's logit_counts {list(self.counts)} do not add up to its {shapes[0][1]} "
                "logits: let it count those of each of its parts."
            )

    def _reduce(self, terms: Tensor) -> Tensor:
        means = [part.mean(1) for part in (terms.split(self.counts, 1) if self.counts else (terms,))]
        return sum(means[1:], start=means[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Minimax(AdversarialLoss):
    """The zero-sum game of Goodfellow et al. 2014, eq. 1; its generator saturates.

    L_D = softplus(-D(x)) + softplus(D(G(z))),   L_G = -softplus(D(G(z))) = log(1 - sigmoid(D(G(z))))
    """

    def discriminator_terms(self, *, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real) + softplus(fake)

    def generator_terms(self, *, real: Tensor | None, fake: Tensor) -> Tensor:
        return -softplus(fake)


class NonSaturating(Minimax):
    """Goodfellow et al. 2014, section 3: the generator maximizes log D(G(z)) and so learns while it loses.

    L_D as in `Minimax`,   L_G = softplus(-D(G(z)))
    """

    def generator_terms(self, *, real: Tensor | None, fake: Tensor) -> Tensor:
        return softplus(-fake)


class Wasserstein(AdversarialLoss):
    """The Kantorovich dual of the earth mover's distance, Arjovsky et al. 2017, eq. 2 and 3.

    L_D = D(G(z)) - D(x),   L_G = -D(G(z)).   D must be kept Lipschitz, by a penalty or spectral norm.
    """

    def discriminator_terms(self, *, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def generator_terms(self, *, real: Tensor | None, fake: Tensor) -> Tensor:
        return -fake


class Hinge(Wasserstein):
    """Lim & Ye 2017 (Geometric GAN); as in Miyato et al. 2018, eq. 16 and 17.

    L_D = max(0, 1 - D(x)) + max(0, 1 + D(G(z))),   L_G = -D(G(z))
    """

    def discriminator_terms(self, *, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real) + relu(1 + fake)


class LeastSquares(AdversarialLoss):
    """Mao et al. 2017, eq. 9: real is labeled 1 and fake 0, the generator aims at 1.

    L_D = (D(x) - 1)^2 / 2 + D(G(z))^2 / 2,   L_G = (D(G(z)) - 1)^2 / 2
    """

    def discriminator_terms(self, *, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - 1).square() + fake.square()) / 2

    def generator_terms(self, *, real: Tensor | None, fake: Tensor) -> Tensor:
        return (fake - 1).square() / 2


class Relativistic(AdversarialLoss):
    """Compares pairs, Jolicoeur-Martineau 2018; with R1 and R2 it is R3GAN (Huang et al. 2024, eq. 2).

    L_D = softplus(D(G(z)) - D(x)),   L_G = softplus(D(x) - D(G(z)))
    """

    relativistic = True

    def discriminator_terms(self, *, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real)

    def generator_terms(self, *, real: Tensor | None, fake: Tensor) -> Tensor:
        assert real is not None  # checked in `generator`
        return softplus(real - fake)
