"""Distances between real and fake features: pure functions of feature matrices, in float64.

Every function takes `real=` [N, D] and `fake=` [M, D], finite and on one device, and raises ValueError if
they are not or if there are too few samples. Tables of pairs are computed in blocks of bounded memory.

torchmetrics' FID is not used. With fewer samples than dimensions it is off by 2e-7, for it takes roots of
eigenvalues that should be zero; with a mean far from zero by far more, for it sums around zero. Its KID
draws random subsets.
`tests/metrics/test_distances.py` compares both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_ENTRIES = 2**22  # entries of a table of pairs in memory at once: 32 MiB in float64


@dataclass(frozen=True)
class Moments:
    """The moments of a set of features that the Fréchet distance needs."""

    count: int
    mean: Tensor  # float64 [D]
    covariance: Tensor  # float64 [D, D], divided by count - 1

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """The moments of a feature matrix [N, D], N >= 2."""
        features = _float64(features)
        mean = features.mean(0)
        centered = features - mean
        return cls(len(features), mean, centered.T @ centered / (len(features) - 1))


def frechet_distance(*, real: Tensor, fake: Tensor) -> Tensor:
    """Squared Fréchet distance of the Gaussians fitted to both sets; float64 scalar.

    With Inception features this is the FID (Heusel et al., 2017, equation 6):
    |mean_r - mean_f|^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)).
    The rounding error stays below 1e-10 of tr(C_r + C_f), also with fewer samples than dimensions and with
    features that are constant or repeat each other.
    """
    real, fake = _checked(real, fake, minimum=2)
    if min(len(real), len(fake)) > real.shape[1]:
        return frechet_from_moments(real=Moments.of(real), fake=Moments.of(fake))
    real_root, fake_root = ((side - side.mean(0)) / (len(side) - 1) ** 0.5 for side in (real, fake))
    trace = real_root.square().sum() + fake_root.square().sum()
    return _squared_distance(real.mean(0) - fake.mean(0), trace, _nuclear_norm(real_root, fake_root))


def frechet_from_moments(*, real: Moments, fake: Moments) -> Tensor:
    """`frechet_distance` from the moments of both sets, each of two samples at least."""
    trace = real.covariance.trace() + fake.covariance.trace()
    return _squared_distance(real.mean - fake.mean, trace, _nuclear_norm(_root(real), _root(fake)))


def _squared_distance(gap: Tensor, trace: Tensor, root_trace: Tensor) -> Tensor:
    return (gap.square().sum() + trace - 2 * root_trace).clamp(min=0)


def _nuclear_norm(real_root: Tensor, fake_root: Tensor) -> Tensor:
    """tr (C_r C_f)^(1/2) from any R [*, D] with C = R^T R.

    The eigenvalues of C_r C_f are the squared singular values of R_r R_f^T. These are exact to 1e-16 of the
    largest, where the root of a rounded zero eigenvalue is only exact to 1e-8.
    """
    return torch.linalg.svdvals(real_root @ fake_root.T).sum()


def _root(moments: Moments) -> Tensor:
    """R with covariance = R^T R, without the directions whose eigenvalue is zero but for rounding."""
    values, vectors = torch.linalg.eigh(moments.covariance)
    nonzero = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return values[nonzero].sqrt()[:, None] * vectors[:, nonzero].T


def kernel_distance(*, real: Tensor, fake: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, unbiased (so it may be negative); float64 scalar.

    With Inception features this is the KID (Binkowski et al., 2018, section 3): cubic kernel
    k(x, y) = (x.y / D + 1)^3. It uses all samples at once instead of a mean over random subsets: the
    expectation is the same, the variance smaller, and nothing is random.
    """
    real, fake = _checked(real, fake, minimum=2)
    cross = _kernel_sum(real, fake) / (len(real) * len(fake))
    return _mean_kernel(real) + _mean_kernel(fake) - 2 * cross


def _mean_kernel(features: Tensor) -> Tensor:
    """Mean kernel of all pairs of two different samples."""
    count, dimension = features.shape
    diagonal = _kernel(features.square().sum(1), dimension).sum()
    return (_kernel_sum(features, features) - diagonal) / (count * (count - 1))


def _kernel_sum(left: Tensor, right: Tensor) -> Tensor:
    blocks = _blocks(left, len(right))
    return torch.stack([_kernel(block @ right.T, left.shape[1]).sum() for block in blocks]).sum()


def _kernel(products: Tensor, dimension: int) -> Tensor:
    """In place."""
    return products.div_(dimension).add_(1).pow_(3)


def precision_recall(*, real: Tensor, fake: Tensor, neighbours: int = 3) -> tuple[Tensor, Tensor]:
    """Precision and recall of Kynkäänniemi et al. (2019, equation 2), in that order; float64 scalars.

    Precision: the fraction of fakes within the ball of a real sample, whose radius is the distance to its
    `neighbours`-th nearest real one. Recall: the same with the roles exchanged.
    """
    return prdc(real=real, fake=fake, near=neighbours, far=neighbours)[:2]


def density_coverage(*, real: Tensor, fake: Tensor, neighbours: int = 5) -> tuple[Tensor, Tensor]:
    """Density and coverage of Naeem et al. (2020, equations 3 and 4), in that order; float64 scalars.

    Density: the mean number of real balls that contain a fake, over `neighbours`; it may exceed 1. Coverage:
    the fraction of real balls that contain a fake.
    """
    return prdc(real=real, fake=fake, near=neighbours, far=neighbours)[2:]


def prdc(*, real: Tensor, fake: Tensor, near: int = 3, far: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`precision_recall` with `near` neighbors and `density_coverage` with `far`, from the same tables."""
    real, fake = _checked(real, fake, minimum=max(near, far) + 1)
    real_near, real_far = _radii(real, near, far)
    (fake_near,) = _radii(fake, near)
    precise, balls = [], []
    recalled, covered = torch.zeros(2, len(real), dtype=torch.bool, device=real.device)
    for block, radii in zip(_blocks(fake, len(real)), _blocks(fake_near, len(real)), strict=True):
        distances = torch.cdist(block, real)
        precise.append((distances <= real_near).any(1))
        recalled |= (distances <= radii[:, None]).any(0)
        inside = distances <= real_far
        balls.append(inside.sum(1))
        covered |= inside.any(0)
    precision, density = torch.cat(precise).double().mean(), torch.cat(balls).double().mean() / far
    return precision, recalled.double().mean(), density, covered.double().mean()


def _radii(features: Tensor, *neighbors: int) -> Tensor:
    """Distances of each sample to its k-th nearest other sample, for each k: [len(neighbors), N]."""
    count = max(neighbors) + 1  # the nearest of all is the sample itself
    tables = (torch.cdist(block, features) for block in _blocks(features, len(features)))
    nearest = torch.cat([table.topk(count, dim=1, largest=False).values for table in tables])
    return nearest.T[list(neighbors)]


def jensen_shannon(*, real: Tensor, fake: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two histograms (Lin 1991, equation 4.1), in bits; float64 scalar.

    0 for equal histograms, 1 for disjoint ones, and 1 if one of them is empty.
    """
    real, fake = _float64(real), _float64(fake)
    if not real.sum() or not fake.sum():
        return torch.ones((), dtype=torch.float64)
    p, q = real / real.sum(), fake / fake.sum()
    mixture = (p + q) / 2
    divergence = torch.xlogy(p, p) + torch.xlogy(q, q) - 2 * torch.xlogy(mixture, mixture)
    return (divergence.sum() / (2 * math.log(2))).clamp_min(0)


def _blocks(rows: Tensor, columns: int) -> Iterator[Tensor]:
    """Splits `rows` so that a table of a part and `columns` columns has at most BLOCK_ENTRIES entries."""
    return iter(rows.split(max(1, BLOCK_ENTRIES // columns)))


def _checked(real: Tensor, fake: Tensor, *, minimum: int) -> tuple[Tensor, Tensor]:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"Real and fake features must be [N, D] and [M, D], not {list(real.shape)} and "
            f"{list(fake.shape)}: extract both with the same extractor."
        )
    for side, features in (("real", real), ("fake", fake)):
        if len(features) < minimum:
            raise ValueError(
                f"{len(features)} {side} samples are too few, this distance needs {minimum}: raise the count."
            )
        if not features.isfinite().all():
            raise ValueError(
                f"The {side} features are not finite: look for NaN or infinity in the {side} samples."
            )
    return _float64(real), _float64(fake)


def _float64(tensor: Tensor) -> Tensor:
    return tensor.to(float64_device(tensor.device)).double()


def float64_device(device: torch.device) -> torch.device:
    """The device; the CPU in place of Metal, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
