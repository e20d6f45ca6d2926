"""Distances against closed forms, explicit sums and other implementations."""

from __future__ import annotations

import importlib
import math

import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from litgan.metrics import distances, load_extractor
from litgan.metrics.distances import (
    Moments,
    density_coverage,
    frechet_distance,
    frechet_from_moments,
    jensen_shannon,
    kernel_distance,
    precision_recall,
)

ALL = [frechet_distance, kernel_distance, precision_recall, density_coverage]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(dimension: int, seed: int = 5) -> Tensor:
    return torch.linalg.qr(normal(dimension, dimension, seed=seed))[0]


def cloud(
    count: int, dimension: int, seed: int, *, axes: int = 0, scale: float = 1, mean: float = 0
) -> Tensor:
    """Correlated features of a falling spectrum."""
    scales = torch.logspace(0, -2, dimension, dtype=torch.float64)
    return scale * (normal(count, dimension, seed=seed) * scales) @ rotation(dimension, axes) + mean


def value(metric, **sides: Tensor) -> Tensor:
    found = metric(**sides)
    return torch.stack(found) if isinstance(found, tuple) else found


def trace(real: Tensor, fake: Tensor) -> Tensor:
    return real.var(0).sum() + fake.var(0).sum()


def by_scipy(real: Tensor, fake: Tensor) -> float:
    """With tr (C_r C_f)^(1/2) = tr (C_r^(1/2) C_f C_r^(1/2))^(1/2), which has a root at any rank."""
    first, second = real.T.cov().numpy(), fake.T.cov().numpy()
    root = scipy.linalg.sqrtm(first).real
    middle = scipy.linalg.sqrtm(root @ second @ root).real
    gap = (real.mean(0) - fake.mean(0)).square().sum().item()
    return gap + first.trace() + second.trace() - 2 * middle.trace()


def by_singular_values(real: Tensor, fake: Tensor) -> Tensor:
    """Of the samples themselves, exact to 1e-15 of the trace."""
    roots = [(side - side.mean(0)) / math.sqrt(len(side) - 1) for side in (real, fake)]
    gap = (real.mean(0) - fake.mean(0)).square().sum()
    return gap + trace(real, fake) - 2 * torch.linalg.svdvals(roots[0] @ roots[1].T).sum()


def constant_and_repeated(constant: slice, *, fake_only: bool = False) -> tuple[Tensor, Tensor]:
    real, fake = cloud(200, 20, 1), cloud(200, 20, 2, axes=1)
    fake[:, constant] = 0
    if not fake_only:
        real[:, 3:8] = 0
        real[:, 19], fake[:, 19] = real[:, 18], fake[:, 18]
    return real, fake


FRECHET = {
    "full rank": (cloud(400, 24, 1), cloud(300, 24, 2, axes=1, scale=1.3, mean=0.2)),
    "fewer samples": (cloud(40, 100, 1), cloud(60, 100, 2, axes=1, scale=1.3, mean=0.2)),
    "fewer fakes": (cloud(300, 64, 1), cloud(30, 64, 2, axes=1)),
    "two samples": (cloud(2, 16, 1), cloud(2, 16, 2)),
    "as many as dimensions": (cloud(24, 24, 1), cloud(24, 24, 2, axes=1)),
    "constant and repeated": constant_and_repeated(slice(3, 12)),
    "constant fakes": constant_and_repeated(slice(3, 12), fake_only=True),
    "constant reals": constant_and_repeated(slice(3, 12), fake_only=True)[::-1],
}


@pytest.mark.filterwarnings("ignore:Matrix is singular")  # scipy's, which then gets it right
@pytest.mark.parametrize(("real", "fake"), FRECHET.values(), ids=FRECHET.keys())
def test_frechet_agrees_with_scipy_and_is_exact(real, fake):
    found = frechet_distance(real=real, fake=fake)
    from_moments = frechet_from_moments(real=Moments.of(real), fake=Moments.of(fake))
    exact = by_singular_values(real, fake)
    assert exact.item() == pytest.approx(by_scipy(real, fake), rel=1e-6)
    for distance in (found, from_moments):
        assert (distance - exact).abs() < 1e-11 * trace(real, fake)


class Double(nn.Module):
    """torchmetrics' `set_dtype` would convert the extractor's own weights, too."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.num_features = extractor.dimension
        self.features = lambda samples: extractor(samples).double()

    def forward(self, samples: Tensor) -> Tensor:
        return self.features(samples)


def by_torchmetrics(network: nn.Module, real: Tensor, fake: Tensor) -> float:
    metric = FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
    for batch in real.split(100):
        metric.update(batch, real=True)
    for batch in fake.split(100):
        metric.update(batch, real=False)
    return metric.compute().item()


def test_frechet_is_torchmetrics_fid_where_that_is_exact():
    """Why it is not torchmetrics' is in the first lines of `litgan.metrics.distances`."""
    extractor = load_extractor("digits")
    real, fake = (normal(800, 1, 8, 8, seed=seed).clamp(-1, 1).float() for seed in (1, 2))
    fake = (fake + 0.3).clamp(-1, 1)
    ours = frechet_distance(real=extractor(real), fake=extractor(fake)).item()
    assert ours == pytest.approx(by_torchmetrics(Double(extractor), real, fake), rel=1e-9)
    plain = nn.Identity()
    plain.num_features = 100
    real, fake = FRECHET["fewer samples"]
    exact = by_singular_values(real, fake).item()
    assert by_torchmetrics(plain, real, fake) != pytest.approx(exact, rel=1e-9)
    plain.num_features = 24
    real, fake = (side + 1e6 for side in FRECHET["full rank"])
    exact = by_singular_values(real, fake).item()
    assert by_torchmetrics(plain, real, fake) != pytest.approx(exact, rel=1e-3)
    assert frechet_distance(real=real, fake=fake).item() == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("count", [97, 400], ids=["barely full rank", "full rank"])
@pytest.mark.parametrize("smallest", [1e-3, 1e-6], ids="scales to {:.0e}".format)
@pytest.mark.parametrize("order", ["falling", "rising", "mixed"])
def test_frechet_is_exact_where_features_differ_in_scale(order, smallest, count):
    scales = torch.logspace(0, math.log10(smallest), 96, dtype=torch.float64)
    orders = {"falling": range(96), "rising": range(95, -1, -1), "mixed": normal(96, seed=3).argsort()}
    scales = scales[list(orders[order])]
    noise = normal(2, count, 96, seed=3)
    real, fake = scales * noise[0], scales * (noise[1] + 0.1 * noise[1].roll(1, 1))
    error = frechet_distance(real=real, fake=fake) - by_singular_values(real, fake)
    assert error.abs() < 1e-10 * trace(real, fake)


def test_frechet_is_exact_where_a_feature_is_repeated():
    for seed in range(40):
        real, fake = normal(2, 64, 16, seed=seed) @ normal(2, 16, 16, seed=100 + seed)
        real[:, 0] = real[:, 15]
        fake[:, 0] = fake[:, 15 if seed % 2 else 0]
        error = frechet_distance(real=real, fake=fake) - by_singular_values(real, fake)
        assert error.abs() < 1e-11 * trace(real, fake)


def test_frechet_of_commuting_covariances():
    """On common axes it is |gap|^2 + sum (sqrt(a) - sqrt(b))^2, whatever the condition, here 1e8."""
    axes, zero = rotation(512), torch.zeros(512).double()
    a = torch.logspace(0, -8, 512, dtype=torch.float64)
    b = a * torch.linspace(0.5, 1.5, 512).double()
    expected = (a.sqrt() - b.sqrt()).square().sum().item()
    real, fake = (Moments(1000, zero, (axes * each) @ axes.T) for each in (a, b))
    assert frechet_from_moments(real=real, fake=fake).item() == pytest.approx(expected, rel=1e-9)
    moved = Moments(1000, zero + 0.5, fake.covariance)
    assert frechet_from_moments(real=real, fake=moved).item() == pytest.approx(expected + 128, rel=1e-9)


@pytest.mark.parametrize("count", [30, 300])
def test_frechet_of_equal_sets_is_zero(count):
    real = cloud(count, 64, 1)
    assert 0 <= frechet_distance(real=real, fake=real.flip(0)).item() < 1e-9 * real.var(0).sum().item()
    assert frechet_distance(real=0 * real, fake=0 * real) == 0


def test_kernel_distance_is_the_explicit_sum():
    real, fake = cloud(7, 3, 1), cloud(5, 3, 2)

    def mean_kernel(left, right):
        values = [
            (float(x @ y) / 3 + 1) ** 3
            for i, x in enumerate(left)
            for j, y in enumerate(right)
            if left is not right or i != j
        ]
        return sum(values) / len(values)

    expected = mean_kernel(real, real) + mean_kernel(fake, fake) - 2 * mean_kernel(real, fake)
    assert kernel_distance(real=real, fake=fake).item() == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_precision_and_recall_agree_with_torch_fidelity():
    pytest.importorskip("torch_fidelity", minversion="0.4")  # before, it exchanged precision and recall
    kid, prc = (importlib.import_module(f"torch_fidelity.metric_{name}") for name in ("kid", "prc"))
    real, fake = cloud(200, 16, 1), cloud(200, 16, 2, axes=1, mean=0.3)
    theirs = kid.kid_features_to_metric(fake, real, kid_subsets=1, kid_subset_size=200, verbose=False)
    expected = theirs["kernel_inception_distance_mean"]
    assert kernel_distance(real=real, fake=fake).item() == pytest.approx(expected, rel=1e-9)
    real, fake = cloud(300, 8, 1), cloud(200, 8, 2, scale=0.7, mean=0.1)
    theirs = prc.prc_features_to_metric(fake, real, prc_neighborhood=3, verbose=False)
    precision, recall = precision_recall(real=real, fake=fake)
    assert 0.05 < precision < 0.95
    assert precision.item() == pytest.approx(theirs["precision"], abs=1e-6)
    assert recall.item() == pytest.approx(theirs["recall"], abs=1e-6)


def test_density_and_coverage_of_four_points():
    """On a line, one neighbor: balls [-1, 1], [0, 2], [1, 3] and, of the outlier, [2, 18]."""
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    fake = torch.tensor([[0.5], [1.5], [2.5], [30.0]])
    assert density_coverage(real=real, fake=fake, neighbours=1) == ((2 + 2 + 2 + 0) / 4, 1)
    assert density_coverage(real=real, fake=fake[[3, 3, 3, 3]], neighbours=1) == (0, 0)


def test_a_tight_set_is_precise_and_a_wide_one_has_recall():
    real, other = normal(2, 500, 8, seed=0)
    for fake, in_order in ((0.3 * other, 1), (3 * other, -1)):
        precision, recall = precision_recall(real=real, fake=fake)[::in_order]
        assert precision > 0.9 and recall < 0.3
    density, coverage = density_coverage(real=real, fake=0.3 * other)
    assert density > 1 and coverage < 0.8
    density, coverage = density_coverage(real=real, fake=3 * other)
    assert density < 0.3 and coverage < 0.3
    assert precision_recall(real=real, fake=real) == (1, 1)
    density, coverage = density_coverage(real=real, fake=real)
    assert coverage == 1 and density > 1  # its own ball, and about five others


def test_jensen_shannon_divergence_is_scipys():
    real, fake = torch.randint(0, 50, (2, 40), generator=torch.Generator().manual_seed(0))
    expected = jensenshannon(real, fake, base=2) ** 2
    assert jensen_shannon(real=real, fake=fake).item() == pytest.approx(expected, abs=1e-12)
    assert jensen_shannon(real=real, fake=3 * real).item() == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(real=torch.tensor([1, 0]), fake=torch.tensor([0, 5])).item() == pytest.approx(1)
    assert jensen_shannon(real=real, fake=0 * fake) == 1


@pytest.mark.parametrize("metric", ALL)
def test_invariances(metric, monkeypatch):
    """Order of samples, rotation of features, a shift (but of the kernel), exchanged sides, and blocks."""
    real, fake = cloud(120, 10, 1), cloud(90, 10, 2, scale=0.8, mean=0.1)
    expected, axes = value(metric, real=real, fake=fake), rotation(10)
    others = [
        value(metric, real=real.flip(0), fake=fake.roll(7, 0)),
        value(metric, real=real @ axes, fake=fake @ axes),
    ]
    if metric is not kernel_distance:
        others.append(value(metric, real=real + 100, fake=fake + 100))
    if metric is not density_coverage:
        exchanged = value(metric, real=fake, fake=real)
        others.append(exchanged.flip(0) if metric is precision_recall else exchanged)
    monkeypatch.setattr(distances, "BLOCK_ENTRIES", 1000)
    for found in [*others, value(metric, real=real, fake=fake)]:
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("metric", ALL)
def test_float64_scalars_or_a_sentence(metric):
    real, fake = cloud(20, 3, 1).float(), cloud(20, 3, 2).float()
    results = metric(real=real, fake=fake)
    for result in results if isinstance(results, tuple) else [results]:
        assert result.dtype == torch.float64 and result.shape == ()
    with pytest.raises(ValueError, match=r"1 fake samples are too few, this distance needs \d"):
        metric(real=real, fake=real[:1])
    with pytest.raises(ValueError, match="same extractor"):
        metric(real=real, fake=real[:, :2])
    with pytest.raises(ValueError, match="fake features are not finite"):
        metric(real=real, fake=real / torch.zeros(3))


def test_more_neighbors_need_more_samples():
    real = cloud(4, 3, 1)
    precision_recall(real=real, fake=real, neighbours=3)
    with pytest.raises(ValueError, match="4 real samples are too few, this distance needs 6"):
        density_coverage(real=real, fake=real)
