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
    Exact for fewer samples than dimensions too, though its value then says more about the counts.
    """
    real, fake = _checked(real, fake, minimum=2)
    mean_gap = real.mean(0) - fake.mean(0)
    return _frechet(mean_gap, _root_of_features(real), _root_of_features(fake))


def frechet_from_moments(*, real: Moments, fake: Moments) -> Tensor:
    """`frechet_distance` of clouds of which only the moments were kept."""
    if real.mean.shape != fake.mean.shape:
        raise ValueError(
            f"real features have {len(real.mean)} dimensions, fake ones {len(fake.mean)}: "
            "extract both with the same extractor"
        )
    if min(real.count, fake.count) < 2:
        raise ValueError(
            f"the Fréchet distance needs 2 samples a side, not {real.count} real and {fake.count} fake ones"
        )
    roots = _root_of_covariance(real.covariance), _root_of_covariance(fake.covariance)
    return _frechet(real.mean - fake.mean, *roots)


def _frechet(mean_gap: Tensor, real_root: Tensor, fake_root: Tensor) -> Tensor:
    # For any roots, C = R^T R, the eigenvalues of C_r C_f are the squared singular values of R_r R_f^T: no
    # square root of a matrix, and rounding stays relative to the largest one instead of its square root.
    overlap = torch.linalg.svdvals(real_root @ fake_root.T).sum()
    spread = real_root.square().sum() + fake_root.square().sum()
    return (mean_gap.square().sum() + spread - 2 * overlap).clamp(min=0)


def _root_of_features(features: Tensor) -> Tensor:
    """R with R^T R = the covariance of `features` [N, D]; at most D rows."""
    if len(features) > features.shape[1]:
        return _root_of_covariance(Moments.of(features).covariance)
    return (features - features.mean(0)) / (len(features) - 1) ** 0.5


def _root_of_covariance(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    # what rounding leaves of a zero eigenvalue is not spread: its root would be 1e-8 of the largest one's
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    return values[kept].sqrt()[:, None] * vectors[:, kept].T


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
    own = _kernel(features.square().sum(1), features.shape[1]).sum()
    return (_kernel_sum(features, features) - own) / (len(features) * (len(features) - 1))


def _kernel_sum(left: Tensor, right: Tensor) -> Tensor:
    sums = [_kernel(block @ right.T, left.shape[1]).sum() for block in _blocks(left, len(right))]
    return torch.stack(sums).sum()


def _kernel(products: Tensor, dimension: int) -> Tensor:
    return (products / dimension + 1) ** 3


def precision_recall(*, real: Tensor, fake: Tensor, neighbours: int = 3) -> tuple[Tensor, Tensor]:
    """Precision and recall of Kynkäänniemi et al. (2019, equation 2), in that order; float64 scalars.

    Precision: the share of fakes that lie within some real sample's ball, whose radius is the distance to
    its `neighbours`-th nearest real one. Recall: the same with the roles exchanged.
    """
    real, fake = _checked(real, fake, minimum=neighbours + 1)
    real_radii, fake_radii = _radii(real, neighbours), _radii(fake, neighbours)
    believable, covered = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for block, radii in zip(_blocks(fake, len(real)), _blocks(fake_radii, len(real)), strict=True):
        distances = torch.cdist(block, real)
        believable.append((distances <= real_radii).any(1))
        covered |= (distances <= radii[:, None]).any(0)
    return torch.cat(believable).double().mean(), covered.double().mean()


def density_coverage(*, real: Tensor, fake: Tensor, neighbours: int = 5) -> tuple[Tensor, Tensor]:
    """Density and coverage of Naeem et al. (2020, equations 3 and 4), in that order; float64 scalars.

    Density: in how many real balls a fake lies, on average, over `neighbours`: an outlier among the reals
    counts for little; it may exceed 1. Coverage: the share of real balls that hold a fake.
    """
    real, fake = _checked(real, fake, minimum=neighbours + 1)
    radii = _radii(real, neighbours)
    balls, covered = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for block in _blocks(fake, len(real)):
        inside = torch.cdist(block, real) <= radii
        balls.append(inside.sum(1))
        covered |= inside.any(0)
    return torch.cat(balls).double().mean() / neighbours, covered.double().mean()


def _radii(features: Tensor, neighbours: int) -> Tensor:
    """Distance of each sample to its `neighbours`-th nearest other one, [N]."""
    nearest = neighbours + 1  # the sample itself is the nearest
    blocks = _blocks(features, len(features))
    tables = (torch.cdist(block, features) for block in blocks)
    return torch.cat([table.topk(nearest, dim=1, largest=False).values[:, -1] for table in tables])


def _blocks(rows: Tensor, columns: int) -> Iterator[Tensor]:
    """`rows` in pieces whose table with `columns` columns holds at most BLOCK_ENTRIES entries."""
    return iter(rows.split(max(1, BLOCK_ENTRIES // columns)))


def _checked(real: Tensor, fake: Tensor, *, minimum: int) -> tuple[Tensor, Tensor]:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"real and fake features must be [N, D] and [M, D], not {list(real.shape)} and "
            f"{list(fake.shape)}: extract both with the same extractor"
        )
    for side, features in (("real", real), ("fake", fake)):
        if len(features) < minimum:
            raise ValueError(
                f"{len(features)} {side} samples are too few, this distance needs {minimum}: raise the count"
            )
        if not features.isfinite().all():
            raise ValueError(
                f"the {side} features are not finite: look for NaN or infinity in the {side} samples"
            )
    return real.double(), fake.double()
