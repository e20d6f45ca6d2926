from __future__ import annotations

import math

import pytest
import torch

from litgan.data import Grid, Ring
from litgan.data.toy import mode_report
from litgan.render import PointBatch


@pytest.mark.parametrize(("data", "modes"), [(Ring(), 8), (Ring(modes=5, radius=0.5), 5), (Grid(), 25)])
def test_samples_have_the_moments_that_are_promised(data, modes):
    points, labels = data.load()
    assert points.shape == (50_000, 2) and data.centers.shape == (modes, 2) and data.sample_shape == (2,)
    for mode in range(modes):
        own = points[labels == mode]
        error = data.std / math.sqrt(len(own))
        assert abs(len(own) - 50_000 / modes) < 1
        assert (own.mean(0) - data.centers[mode]).abs().max() < 5 * error
        assert (own.std(0) - data.std).abs().max() < 5 * error
    covered, share = mode_report(points, data.centers, data.std)
    assert covered == modes and share == pytest.approx(1 - math.exp(-4.5), abs=5e-3), "Rayleigh's P(r <= 3 s)"


def test_centers_are_where_the_docstrings_say():
    ring, grid = Ring(modes=4, radius=0.5).centers, Grid(side=3, extent=0.6).centers
    expected = torch.tensor([[0.5, 0], [0, 0.5], [-0.5, 0], [0, -0.5]])
    torch.testing.assert_close(ring, expected, atol=1e-7, rtol=0)
    expected = torch.tensor([[x, y] for y in (-0.6, 0.0, 0.6) for x in (-0.6, 0.0, 0.6)])
    torch.testing.assert_close(grid, expected)


def test_samples_do_not_follow_the_runs_seed_and_splits_differ():
    assert Ring(seed=1).fingerprint == Ring(seed=2).fingerprint != Ring(std=0.03).fingerprint
    assert not torch.equal(Ring().load("train")[0], Ring().load("test")[0])


def test_labels_are_modes_when_asked_for():
    data = Ring(num_classes=8, batch_size=100)
    points, labels = next(iter(data.train_dataloader()))
    assert torch.equal(torch.cdist(points, data.centers).argmin(1), labels)
    with pytest.raises(ValueError, match="Ring has 8 classes: give num_classes 8"):
        Ring(num_classes=10)


def test_report_counts_covered_modes_and_good_samples():
    data = Ring()
    at = data.centers
    # Half of the points on mode 0, half on mode 1 but off by 4 sigma: one mode, half of the samples.
    points = torch.cat([at[:1].expand(50, 2), at[1:2].expand(50, 2) + torch.tensor([0.0, 4 * data.std])])
    assert mode_report(points, at, data.std) == (1, 0.5)
    # 800 points: a fair share is 100, so 10 cover a mode and 9 do not.
    points = torch.cat([at[:1].expand(781, 2), at[1:2].expand(10, 2), at[2:3].expand(9, 2)])
    assert mode_report(points, at, data.std) == (2, 1.0)
    for nothing in (0.0, math.nan):
        assert mode_report(torch.full((100, 2), nothing), at, data.std) == (0, 0.0)


def test_decode_draws_points_on_the_whole_plane():
    points = Ring().decode(torch.rand(7, 2))
    assert isinstance(points, PointBatch) and len(points) == 7 and points.limit == 1.0
