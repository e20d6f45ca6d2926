"""Distances against closed forms, hand-made tables and other people's implementations."""

from __future__ import annotations

import importlib

import pytest
import scipy.linalg
import torch
from torch import Tensor

from litgan.metrics import distances
from litgan.metrics.distances import (
    Moments,
    density_coverage,
    frechet_distance,
    frechet_from_moments,
    kernel_distance,
    precision_recall,
)

ALL = [frechet_distance, kernel_distance, precision_recall, density_coverage]


def cloud(
    count: int, dimension: int, seed: int, *, axes: int = 0, spread: float = 1.0, centre: float = 0.0
) -> Tensor:
    """Correlated features with a decaying spectrum, as extractors give them."""
    scales = torch.logspace(0, -2, dimension, dtype=torch.float64)
    drawn = torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return spread * (drawn * scales) @ rotation(dimension, axes) + centre


def rotation(dimension: int, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dimension, dimension, generator=generator, dtype=torch.float64))[0]


def both(metric, real: Tensor, fake: Tensor) -> Tensor:
    return torch.stack([*metric(real=real, fake=fake)]) if metric in ALL[2:] else metric(real=real, fake=fake)


def test_frechet_of_known_gaussians():
    """Commuting covariances: |gap|^2 + sum (sqrt(a) - sqrt(b))^2 over the common axes."""
    axes = rotation(3)
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 0.0, 1.0]).double()
    gap = torch.tensor([1.0, -2.0, 0.5]).double()
    real = Moments(100, torch.zeros(3).double(), axes @ a.diag() @ axes.T)
    fake = Moments(50, gap, axes @ b.diag() @ axes.T)
    expected = 5.25 + 1 + 4 + 4
    assert frechet_from_moments(real=real, fake=fake).item() == pytest.approx(expected, rel=1e-12)


def test_frechet_of_sampled_gaussians_approaches_the_truth():
    real, fake = torch.randn(2, 40_000, 4, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(real=real, fake=3 * fake + 1).item() == pytest.approx(4 + 4 * 4, rel=0.02)


singular = pytest.mark.filterwarnings("ignore:Matrix is singular")  # scipy's, which then gets it right


@singular
@pytest.mark.parametrize(
    ("count", "fakes", "dimension"),
    [(400, 300, 24), (40, 60, 100), (300, 30, 64), (2, 2, 16), (24, 24, 24)],
    ids=["full rank", "both deficient", "fakes deficient", "two samples", "as many as dimensions"],
)
def test_frechet_agrees_with_scipy(count, fakes, dimension):
    real, fake = cloud(count, dimension, 1), cloud(fakes, dimension, 2, axes=1, spread=1.3, centre=0.2)
    expected = by_scipy(real, fake)
    assert frechet_distance(real=real, fake=fake).item() == pytest.approx(expected, rel=1e-6)
    moments = frechet_from_moments(real=Moments.of(real), fake=Moments.of(fake))
    assert moments.item() == pytest.approx(expected, rel=1e-6)


@singular
def test_frechet_with_dead_features_agrees_with_scipy():
    """More samples than dimensions, and yet no rank: some features never fire, one repeats another."""
    real, fake = cloud(200, 20, 1), cloud(200, 20, 2, axes=1)
    real[:, 3:8], fake[:, 3:12] = 0, 0
    real[:, 19], fake[:, 19] = real[:, 18], fake[:, 18]
    assert frechet_distance(real=real, fake=fake).item() == pytest.approx(by_scipy(real, fake), rel=1e-6)


@singular
def test_frechet_with_dead_features_on_one_side_agrees_with_scipy():
    real, fake = cloud(200, 20, 1), cloud(200, 20, 2, axes=1)
    fake[:, 3:12] = 0
    for sides in ({"real": real, "fake": fake}, {"real": fake, "fake": real}):
        assert frechet_distance(**sides).item() == pytest.approx(by_scipy(**sides), rel=1e-6)


@pytest.mark.parametrize("count", [97, 400], ids=["barely full rank", "full rank"])
@pytest.mark.parametrize("spread", [1e-3, 1e-6], ids="scales to {:.0e}".format)
@pytest.mark.parametrize("order", ["falling", "rising", "mixed"])
def test_frechet_keeps_its_digits_where_features_differ_in_scale(order, spread, count):
    """Against roots and singular values, which round at 1e-15 of the trace; a zero's root would at 1e-8."""
    scales = torch.logspace(0, torch.tensor(spread).log10().item(), 96, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    kinds = {"falling": torch.arange(96), "rising": torch.arange(95, -1, -1)}
    scales = scales[kinds.get(order, torch.randperm(96, generator=generator))]
    noise = torch.randn(2, count, 96, generator=generator, dtype=torch.float64)
    real, fake = scales * noise[0], scales * (noise[1] + 0.1 * noise[1].roll(1, 1))
    error = frechet_distance(real=real, fake=fake) - by_singular_values(real, fake)
    assert error.abs() < 1e-10 * spread_of(real, fake)


def test_frechet_is_not_deceived_by_what_rounding_leaves_of_a_repeated_feature():
    """Cholesky's factorisation often ends well on it, with a last pivot that should be zero."""
    for seed in range(40):
        drawn = torch.randn(2, 64, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        real, fake = drawn @ torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(seed)).double()
        real[:, 0] = real[:, 15]
        fake[:, 0] = fake[:, 15 if seed % 2 else 0]
        error = frechet_distance(real=real, fake=fake) - by_singular_values(real, fake)
        assert error.abs() < 1e-11 * spread_of(real, fake)


def by_singular_values(real: Tensor, fake: Tensor) -> Tensor:
    roots = []
    for values, vectors in (torch.linalg.eigh(each.T.cov()) for each in (real, fake)):
        kept = values > 1e-14 * values[-1]
        roots.append(vectors[:, kept] * values[kept].sqrt())
    overlap = torch.linalg.svdvals(roots[0].T @ roots[1]).sum()
    return (real.mean(0) - fake.mean(0)).square().sum() + spread_of(real, fake) - 2 * overlap


def spread_of(real: Tensor, fake: Tensor) -> Tensor:
    return real.var(0).sum() + fake.var(0).sum()


def test_frechet_of_an_ill_conditioned_spectrum():
    """On common axes it is sum (sqrt(a) - sqrt(b))^2, whatever the condition (here 1e8) and the blocks."""
    axes = rotation(512)
    a = torch.logspace(0, -8, 512, dtype=torch.float64)
    b = a * torch.linspace(0.5, 1.5, 512).double()
    real, fake = (Moments(1000, torch.zeros(512).double(), (axes * each) @ axes.T) for each in (a, b))
    expected = (a.sqrt() - b.sqrt()).square().sum().item()
    assert frechet_from_moments(real=real, fake=fake).item() == pytest.approx(expected, rel=1e-9)


def by_scipy(real: Tensor, fake: Tensor) -> float:
    """tr (C_r C_f)^(1/2) through (C_r^(1/2) C_f C_r^(1/2))^(1/2), which has a root at any rank."""
    first, second = real.T.cov().numpy(), fake.T.cov().numpy()
    root = scipy.linalg.sqrtm(first).real
    middle = scipy.linalg.sqrtm(root @ second @ root).real
    gap = (real.mean(0) - fake.mean(0)).square().sum().item()
    return gap + first.trace() + second.trace() - 2 * middle.trace()


def test_frechet_of_a_cloud_with_itself_is_zero():
    for count in (30, 300):
        real = cloud(count, 64, 1)
        assert 0 <= frechet_distance(real=real, fake=real.flip(0)).item() < 1e-9 * real.var(0).sum().item()


def test_kernel_distance_by_hand():
    real, fake = cloud(7, 3, 1), cloud(5, 3, 2)

    def mean_kernel(left, right):
        same = left is right
        values = [
            (float(x @ y) / 3 + 1) ** 3
            for i, x in enumerate(left)
            for j, y in enumerate(right)
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    expected = mean_kernel(real, real) + mean_kernel(fake, fake) - 2 * mean_kernel(real, fake)
    assert kernel_distance(real=real, fake=fake).item() == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_agrees_with_torch_fidelity():
    reference = pytest.importorskip("torch_fidelity.metric_kid")
    real, fake = cloud(200, 16, 1).float(), cloud(200, 16, 2, axes=1, centre=0.3).float()
    theirs = reference.kid_features_to_metric(
        fake.double(), real.double(), kid_subsets=1, kid_subset_size=200, verbose=False
    )["kernel_inception_distance_mean"]
    assert kernel_distance(real=real, fake=fake).item() == pytest.approx(theirs, rel=1e-9)


def test_precision_and_recall_agree_with_torch_fidelity():
    pytest.importorskip("torch_fidelity", minversion="0.4")  # before, it exchanged the two
    reference = importlib.import_module("torch_fidelity.metric_prc")
    real, fake = cloud(300, 8, 1), cloud(200, 8, 2, spread=0.7, centre=0.1)
    theirs = reference.prc_features_to_metric(fake, real, prc_neighborhood=3, verbose=False)
    precision, recall = precision_recall(real=real, fake=fake)
    assert 0.05 < precision < 0.95
    assert precision.item() == pytest.approx(theirs["precision"], abs=1e-6)
    assert recall.item() == pytest.approx(theirs["recall"], abs=1e-6)


def test_a_tight_cloud_is_precise_and_a_wide_one_recalls():
    generator = torch.Generator().manual_seed(0)
    real, other = torch.randn(2, 500, 8, generator=generator)
    tight, wide = 0.3 * other, 3 * other
    precision, recall = precision_recall(real=real, fake=tight)
    assert precision > 0.95 and recall < 0.3
    precision, recall = precision_recall(real=real, fake=wide)
    assert precision < 0.3 and recall > 0.9
    density, coverage = density_coverage(real=real, fake=tight)
    assert density > 1 and coverage < 0.8
    density, coverage = density_coverage(real=real, fake=wide)
    assert density < 0.3 and coverage < 0.3


def test_density_and_coverage_by_hand():
    """On a line, one neighbour: balls [-1, 1], [0, 2], [2 - 1, 2 + 1] and, for the outlier, [2, 18]."""
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    fake = torch.tensor([[0.5], [1.5], [2.5], [30.0]])
    density, coverage = density_coverage(real=real, fake=fake, neighbours=1)
    assert density == pytest.approx((2 + 2 + 2 + 0) / 4)
    assert coverage == 1
    density, coverage = density_coverage(real=real, fake=fake[[3, 3, 3, 3]], neighbours=1)
    assert (density, coverage) == (0, 0)


def test_the_same_cloud_is_precise_and_recalled():
    real = cloud(100, 8, 1)
    assert both(precision_recall, real, real).tolist() == [1, 1]
    density, coverage = density_coverage(real=real, fake=real)
    assert coverage == 1 and density > 1  # its own ball, and about five neighbours' balls


@pytest.mark.parametrize("metric", ALL)
def test_order_of_samples_and_rotation_of_features_change_nothing(metric):
    real, fake = cloud(120, 10, 1), cloud(90, 10, 2, spread=0.8, centre=0.1)
    value = both(metric, real, fake)
    turned = rotation(10)
    torch.testing.assert_close(both(metric, real.flip(0), fake.roll(7, 0)), value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(both(metric, real @ turned, fake @ turned), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("metric", [frechet_distance, precision_recall, density_coverage])
def test_a_shift_of_both_clouds_changes_nothing(metric):
    real, fake = cloud(120, 10, 1), cloud(90, 10, 2, spread=0.8)
    torch.testing.assert_close(
        both(metric, real + 100, fake + 100), both(metric, real, fake), rtol=1e-7, atol=1e-9
    )


def test_exchanging_the_sides():
    real, fake = cloud(120, 10, 1), cloud(90, 10, 2, spread=0.7)
    for metric in (frechet_distance, kernel_distance):
        torch.testing.assert_close(metric(real=real, fake=fake), metric(real=fake, fake=real))
    assert precision_recall(real=real, fake=fake) == precision_recall(real=fake, fake=real)[::-1]


@pytest.mark.parametrize("metric", ALL[1:])
def test_blocks_change_nothing(metric, monkeypatch):
    real, fake = cloud(120, 10, 1), cloud(90, 10, 2, spread=0.7)
    whole = both(metric, real, fake)
    monkeypatch.setattr(distances, "BLOCK_ENTRIES", 1000)
    torch.testing.assert_close(both(metric, real, fake), whole)


@pytest.mark.parametrize("metric", ALL)
def test_results_are_float64_scalars(metric):
    values = metric(real=cloud(20, 3, 1).float(), fake=cloud(20, 3, 2).float())
    for value in values if isinstance(values, tuple) else [values]:
        assert value.dtype == torch.float64 and value.shape == ()


@pytest.mark.parametrize("metric", ALL)
def test_bad_features_are_refused_in_a_sentence(metric):
    real = cloud(20, 3, 1)
    with pytest.raises(
        ValueError, match=r"1 fake samples are too few, this distance needs \d: raise the count\.$"
    ):
        metric(real=real, fake=real[:1])
    with pytest.raises(ValueError, match="same extractor"):
        metric(real=real, fake=real[:, :2])
    with pytest.raises(ValueError, match=r"The fake features are not finite: .*\.$"):
        metric(real=real, fake=real / torch.zeros(3))


def test_bad_moments_are_refused_in_a_sentence():
    moments = Moments.of(cloud(20, 3, 1))
    with pytest.raises(ValueError, match="needs 2 samples a side, not 20 real and 1 fake"):
        frechet_from_moments(real=moments, fake=Moments(1, moments.mean, moments.covariance))
    with pytest.raises(ValueError, match="3 dimensions, the fake ones 4"):
        frechet_from_moments(real=moments, fake=Moments.of(cloud(20, 4, 1)))


def test_neighbours_raise_the_count_that_is_needed():
    real = cloud(4, 3, 1)
    precision_recall(real=real, fake=real, neighbours=3)
    with pytest.raises(ValueError, match="4 real samples are too few, this distance needs 6"):
        density_coverage(real=real, fake=real)
