"""How far fake features are from real ones: pure functions of feature matrices, float64 inside.

Every function takes `real=` [N, D] and `fake=` [M, D], finite, on one device, and raises ValueError when
they are not, or are fewer than the metric needs. Pairwise tables are walked in blocks of bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_ENTRIES = 2**22  # of a pairwise table held at once: 32 MiB in float64


@dataclass  # not frozen: a torchmetrics.Metric could not return it
class Moments:
    """What the Fréchet distance needs to know of a cloud of features."""

    count: int
    mean: Tensor  # float64 [D]
    covariance: Tensor  # float64 [D, D], of the sample: divided by count - 1

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """The moments of a feature matrix [N, D], N >= 2."""
        centred = features.double() - features.double().mean(0)
        return cls(len(features), features.double().mean(0), centred.T @ centred / (len(features) - 1))


def frechet_distance(*, real: Tensor, fake: Tensor) -> Tensor:
    """Squared Fréchet distance of the Gaussians fitted to both clouds; float64 scalar.

    With Inception features this is the FID (Heusel et al., 2017, equation 6):
    |mean_r - mean_f|^2 + tr(C_r + C_f - 2 (C_r C_f)^(1/2)).
    Exact for fewer samples than dimensions too, though its value then says more about the counts. Rounding
    stays below 1e-10 of tr(C_r + C_f), also where features repeat each other or never fire.
    """
    real, fake = _checked(real, fake, minimum=2)
    if min(len(real), len(fake)) > real.shape[1]:
        return frechet_from_moments(real=Moments.of(real), fake=Moments.of(fake))
    roots = _root_of_features(real), _root_of_features(fake)
    spread = sum(root.square().sum() for root in roots)
    mean_gap = (real.mean(0) - fake.mean(0)).square().sum()
    return (mean_gap + spread - 2 * _overlap_of_roots(*roots)).clamp(min=0)


def frechet_from_moments(*, real: Moments, fake: Moments) -> Tensor:
    """`frechet_distance` of clouds of which only the moments were kept."""
    if real.mean.shape != fake.mean.shape:
        raise ValueError(
            f"The real features have {len(real.mean)} dimensions, the fake ones {len(fake.mean)}: "
            "extract both with the same extractor."
        )
    if min(real.count, fake.count) < 2:
        raise ValueError(
            f"The Fréchet distance needs 2 samples a side, not {real.count} real and {fake.count} fake ones: "
            "raise the count."
        )
    covariances = real.covariance, fake.covariance
    factors = _cholesky_factors(*covariances)
    if factors is None:
        overlap = _overlap_of_roots(*map(_root_of_covariance, covariances))
    else:
        overlap = _overlap_of_factors(*factors)
    mean_gap = (real.mean - fake.mean).square().sum()
    return (mean_gap + real.covariance.trace() + fake.covariance.trace() - 2 * overlap).clamp(min=0)


def _overlap_of_roots(real: Tensor, fake: Tensor) -> Tensor:
    """tr (C_r C_f)^(1/2) from any roots [*, D], C = R^T R, also of covariances without full rank.

    The eigenvalues of C_r C_f are the squared singular values of R_r R_f^T, and rounding stays 1e-16 of the
    largest of these, where the root of an eigenvalue that should be zero would be 1e-8 of it.
    """
    return torch.linalg.svdvals(real @ fake.T).sum()


def _overlap_of_factors(real: Tensor, fake: Tensor, *, block: int = 256) -> Tensor:
    """`_overlap_of_roots` of R = L^T, L triangular and of full rank: eigenvalues of a symmetric matrix.

    Block by block, for half of each factor is zero and nobody reads the upper half of the last product.
    """
    product, gram = torch.zeros_like(real), torch.zeros_like(real)
    pieces = [(slice(start, start + block), slice(start + block)) for start in range(0, len(real), block)]
    for rows, known in pieces:
        product[known, known] += real[rows, known].T @ fake[rows, known]
    for rows, known in pieces:
        gram[rows, known] = product[rows] @ product[known].T
    return torch.linalg.eigvalsh(gram, UPLO="L").clamp(min=0).sqrt().sum()


def _cholesky_factors(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor] | None:
    """Lower factors of both covariances, their features in a common order; None where one lacks full rank."""
    # falling variances grade the factors downwards, as the accuracy of small eigenvalues wants it
    order = (real.diagonal() + fake.diagonal()).argsort(descending=True)
    factors = []
    for covariance in (real, fake):
        factor, failed = torch.linalg.cholesky_ex(covariance[order][:, order])
        pivots = factor.diagonal().square()
        if failed or not pivots.min() > pivots.max() * _tolerance(covariance):
            return None
        factors.append(factor)
    return factors[0], factors[1]


def _root_of_features(features: Tensor) -> Tensor:
    """R with R^T R = the covariance of `features` [N, D]; at most D rows."""
    if len(features) > features.shape[1]:
        return _root_of_covariance(Moments.of(features).covariance)
    return (features - features.mean(0)) / (len(features) - 1) ** 0.5


def _root_of_covariance(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    # what rounding leaves of a zero eigenvalue is not spread: its root would be 1e-8 of the largest one's
    kept = values > values[-1] * _tolerance(covariance)
    return values[kept].sqrt()[:, None] * vectors[:, kept].T


def _tolerance(matrix: Tensor) -> float:
    """What rounding leaves of a zero eigenvalue, relative to the largest."""
    return len(matrix) * torch.finfo(matrix.dtype).eps


def kernel_distance(*, real: Tensor, fake: Tensor) -> Tensor:
    """Squared maximum mean discrepancy, unbiased (so it may be negative); float64 scalar.

    With Inception features this is the KID (Binkowski et al., 2018, section 3): cubic kernel
    k(x, y) = (x.y / D + 1)^3. Over all samples at once instead of the mean over random subsets: the
    expectation is the same, the variance smaller, and nothing is drawn.
    """
    real, fake = _checked(real, fake, minimum=2)
    across = _kernel_sum(real, fake) / (len(real) * len(fake))
    return _kernel_within(real) + _kernel_within(fake) - 2 * across


def _kernel_within(features: Tensor) -> Tensor:
    """Mean kernel of two different samples."""
    count, dimension = features.shape
    sums, start = [-_kernel(features.square().sum(1), dimension).sum()], 0  # less each sample's own
    for block in _blocks(features, count):
        table = _kernel(block @ features[start:].T, dimension)
        sums.append(2 * table.sum() - table[:, : len(block)].sum())  # what lies left of it is mirrored above
        start += len(block)
    return torch.stack(sums).sum() / (count * (count - 1))


def _kernel_sum(left: Tensor, right: Tensor) -> Tensor:
    sums = [_kernel(block @ right.T, left.shape[1]).sum() for block in _blocks(left, len(right))]
    return torch.stack(sums).sum()


def _kernel(products: Tensor, dimension: int) -> Tensor:
    """In place of `products`."""
    return products.div_(dimension).add_(1).pow_(3)


def precision_recall(*, real: Tensor, fake: Tensor, neighbours: int = 3) -> tuple[Tensor, Tensor]:
    """Precision and recall of Kynkäänniemi et al. (2019, equation 2), in that order; float64 scalars.

    Precision: the share of fakes that lie within some real sample's ball, whose radius is the distance to
    its `neighbours`-th nearest real one. Recall: the same with the roles exchanged.
    """
    return prdc(real=real, fake=fake, near=neighbours, far=neighbours)[:2]


def density_coverage(*, real: Tensor, fake: Tensor, neighbours: int = 5) -> tuple[Tensor, Tensor]:
    """Density and coverage of Naeem et al. (2020, equations 3 and 4), in that order; float64 scalars.

    Density: in how many real balls a fake lies, on average, over `neighbours`: an outlier among the reals
    counts for little; it may exceed 1. Coverage: the share of real balls that hold a fake.
    """
    return prdc(real=real, fake=fake, near=neighbours, far=neighbours)[2:]


def prdc(*, real: Tensor, fake: Tensor, near: int = 3, far: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`precision_recall` to the `near`-th neighbour, and `density_coverage` to the `far`-th.

    Together they need three tables of distances, not five.
    """
    real, fake = _checked(real, fake, minimum=max(near, far) + 1)
    real_near, real_far = _radii(real, near, far)
    (fake_near,) = _radii(fake, near)
    believable, balls = [], []
    recalled, covered = torch.zeros(2, len(real), dtype=torch.bool, device=real.device)
    for block, radii in zip(_blocks(fake, len(real)), _blocks(fake_near, len(real)), strict=True):
        distances = torch.cdist(block, real)
        believable.append((distances <= real_near).any(1))
        recalled |= (distances <= radii[:, None]).any(0)
        within = distances <= real_far
        balls.append(within.sum(1))
        covered |= within.any(0)
    precision, density = torch.cat(believable).double().mean(), torch.cat(balls).double().mean() / far
    return precision, recalled.double().mean(), density, covered.double().mean()


def _radii(features: Tensor, *neighbours: int) -> Tensor:
    """Distances of each sample to its so-manieth nearest other ones, [len(neighbours), N]."""
    tables = (torch.cdist(block, features) for block in _blocks(features, len(features)))
    nearest = max(neighbours) + 1  # the sample itself is the nearest
    found = torch.cat([table.topk(nearest, dim=1, largest=False).values for table in tables])
    return found.T[list(neighbours)]


def _blocks(rows: Tensor, columns: int) -> Iterator[Tensor]:
    """`rows` in pieces whose table with `columns` columns holds at most BLOCK_ENTRIES entries."""
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
    return real.double(), fake.double()
