"""The dynamics of two-player games: the gradient vector field, its Jacobian and the update operator.

Mescheder et al. 2018, "Which training methods for GANs do actually converge?". Each player
descends its own loss, so the field v = (-dL_G/dtheta, -dL_D/dpsi) is not a gradient. Near an equilibrium the
eigenvalues lambda of its Jacobian decide about convergence: an update of size h multiplies the distance along
an eigenvector by 1 + h lambda, and imaginary eigenvalues rotate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev

from litgan.losses import AdversarialLoss

Losses: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (theta, psi) -> (L_G, L_D)
Update: TypeAlias = Literal["simultaneous", "alternating"]


@dataclass(frozen=True)
class Game:
    """Two players, each a vector of parameters with a loss that depends on both.

    Points of the game are theta and psi in one vector, theta first.
    """

    losses: Losses
    generator_size: int  # entries of theta

    def split(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """theta and psi of a point."""
        return point[: self.generator_size], point[self.generator_size :]

    def field(self, point: Tensor) -> Tensor:
        """The vector field v at a point: the negative gradients of both losses."""
        theta, psi = self.split(point)
        of_generator = grad(lambda own: self.losses(own, psi)[0])(theta)
        of_discriminator = grad(lambda own: self.losses(theta, own)[1])(psi)
        return -torch.cat([of_generator, of_discriminator])

    def update(self, point: Tensor, rate: float, kind: Update = "simultaneous") -> Tensor:
        """The point after one iteration of gradient descent; alternating: the discriminator first.

        Raises ValueError: for another kind of update.
        """
        if kind == "simultaneous":
            return point + rate * self.field(point)
        if kind != "alternating":
            raise ValueError(f"There is no update {kind!r}: give simultaneous or alternating.")
        theta, psi = self.split(point)
        psi = psi + rate * self.split(self.field(point))[1]
        theta = theta + rate * self.split(self.field(torch.cat([theta, psi])))[0]
        return torch.cat([theta, psi])

    def eigenvalues(self, point: Tensor) -> Tensor:
        """Complex eigenvalues of the field's Jacobian; the flow converges if all real parts are negative."""
        return torch.linalg.eigvals(jacrev(self.field)(point))

    def multipliers(self, point: Tensor, rate: float, kind: Update = "simultaneous") -> Tensor:
        """Eigenvalues of the update's Jacobian; iterations converge if all are inside the unit circle."""
        return torch.linalg.eigvals(jacrev(lambda place: self.update(place, rate, kind))(point))

    def trajectory(self, start: Tensor, rate: float, steps: int, kind: Update = "simultaneous") -> Tensor:
        """The points of all iterations, `start` included, [steps + 1, size]."""
        points = [start]
        for _ in range(steps):
            points.append(self.update(points[-1], rate, kind))
        return torch.stack(points)


def dirac_gan(loss: AdversarialLoss, gamma: float = 0.0) -> Game:
    """The Dirac-GAN, definition 2.1: one real sample at 0, one fake at theta, D(x) = psi x.

    Its equilibrium is (0, 0). With f'(0) the slope of a loss such as `NonSaturating` (1/2), the eigenvalues
    there are +- i f'(0) (lemma 2.3); with R1 of weight gamma / 2 they are
    -gamma / 2 +- sqrt(gamma^2 / 4 - f'(0)^2) (lemma 3.3): the flow converges for every gamma > 0,
    simultaneous updates of size h for gamma > h f'(0)^2.

    Args:
        loss: the adversarial loss.
        gamma: weight of R1; the squared gradient of D is psi^2 here.
    """

    def losses(theta: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
        real, fake = (0.0 * psi)[None], (psi * theta)[None]
        of_generator = loss.generator(real=real, fake=fake).mean()
        of_discriminator = loss.discriminator(real=real, fake=fake).mean() + gamma / 2 * psi.square().sum()
        return of_generator, of_discriminator

    return Game(losses, 1)


def network_game(
    generator: nn.Module,
    discriminator: nn.Module,
    loss: AdversarialLoss,
    *,
    latents: Tensor,
    real: Tensor,
    gamma: float = 0.0,
) -> tuple[Game, Tensor]:
    """The game of two small networks on a fixed batch, and the point of their present weights.

    Args:
        generator: without batch norm or dropout.
        discriminator: unconditional, without batch norm or dropout.
        loss: the adversarial loss.
        latents: [B, latent_dim].
        real: samples [B, *sample_shape].
        gamma: weight of R1.
    """
    networks = (generator, discriminator)
    shapes = [{name: weight.shape for name, weight in network.named_parameters()} for network in networks]
    point = torch.cat([weight.detach().flatten() for network in networks for weight in network.parameters()])

    def weights(flat: Tensor, which: int) -> dict[str, Tensor]:
        parts = flat.split([shape.numel() for shape in shapes[which].values()])
        return {
            name: part.view(shape) for part, (name, shape) in zip(parts, shapes[which].items(), strict=True)
        }

    def losses(theta: Tensor, psi: Tensor) -> tuple[Tensor, Tensor]:
        def logits_of(samples: Tensor) -> Tensor:
            return functional_call(discriminator, weights(psi, 1), (samples,))

        fake = functional_call(generator, weights(theta, 0), (latents,))
        logits = {"real": logits_of(real), "fake": logits_of(fake)}
        slope = grad(lambda samples: logits_of(samples).mean(1).sum())(real)
        penalty = gamma / 2 * slope.flatten(1).square().sum(1).mean() if gamma else 0.0
        return loss.generator(**logits).mean(), loss.discriminator(**logits).mean() + penalty

    return Game(losses, sum(shape.numel() for shape in shapes[0].values())), point


def rotation_share(updates: Tensor) -> Tensor:
    """The sine of the angle between successive updates, [N] from updates [N + 1, size].

    It is 0 for updates along one line, forward or backward, and 1 for orthogonal ones. It does not depend on
    the step size: it is small when training settles and stays large when it circles.
    """
    cosine = nn.functional.cosine_similarity(updates[1:], updates[:-1], dim=1)
    return (1 - cosine.square()).clamp_min(0).sqrt()
