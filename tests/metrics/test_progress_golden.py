"""Golden values of the way through a network."""

import math

import pytest
import torch
from golden import H, K, W, Y

from pipeline.metrics import dnc1, nc1_pinv, nc2_simplex
from pipeline.metrics.progress import decreasing_share, path_sums, spearman, straightness

LAST = 2 * torch.eye(4, dtype=torch.float64)[Y]


def test_golden_values_of_a_profile() -> None:
    profile = torch.tensor([3, 2.5, 2.7, 1, 0.4], dtype=torch.float64)
    assert float(decreasing_share(profile)) == 0.75 and float(spearman(profile)) == pytest.approx(-0.9)


def test_golden_straightness() -> None:
    bend = 0.7 * H + 0.3 * LAST + 0.1 * torch.cos(H)
    assert float(straightness(path_sums([H, bend, LAST]))) == pytest.approx(0.976301636247, rel=1e-9)
    assert float(straightness(path_sums([H, 0.5 * (H + LAST), LAST]))) == pytest.approx(1)


def test_golden_collapse_along_a_geodesic() -> None:
    golden = {
        dnc1: [0.703133479736, 0.392074845841, 0.166800291977, 0.038709879128, 0],
        nc1_pinv: [0.258064378536, 0.151810731729, 0.066182546897, 0.015292892227, 0],
        nc2_simplex: [0.242687428203, 0.202703897374, 0.150516522002, 0.081812228498, 0],
    }
    for metric, expected in golden.items():
        found = [float(metric((1 - t) * H + t * LAST, Y, K)) for t in (0, 0.25, 0.5, 0.75, 1)]
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert float(decreasing_share(torch.tensor(found))) == 1 and float(
            spearman(torch.tensor(found))
        ) == pytest.approx(-1)


def test_golden_between_scatter_of_both_ends_decides_that_it_falls() -> None:
    ends = []
    for rows in (H, LAST):
        means = torch.stack([rows[label == Y].mean(0) for label in range(K)])
        ends.append(means - rows.mean(0))
    first, both, last = (float((a * b).sum()) / K for a, b in ((ends[0],) * 2, ends, (ends[1],) * 2))
    assert (first, both) == pytest.approx((2.305601203872, 2.262295000437), rel=1e-9)
    within = float(dnc1(H, Y, K)) * first
    assert within == pytest.approx(1.621145397361, rel=1e-9)
    for t in (0.25, 0.5, 0.75):
        expected = (1 - t) ** 2 * within / ((1 - t) ** 2 * first + 2 * t * (1 - t) * both + t**2 * last)
        assert float(dnc1((1 - t) * H + t * LAST, Y, K)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("strength", "loss", "scatter"),
    [
        (1, 0.904350361990, 0.425110098708),
        (0.1, 0.124457051216, 0.324110215860),
        (0.01, 0.013027303513, 0.324076265067),
    ],
)
def test_golden_features_that_are_tied_to_their_inputs(strength: float, loss: float, scatter: float) -> None:
    targets = torch.eye(K, dtype=torch.float64)[Y]
    found = torch.linalg.solve(W.T @ W + strength * torch.eye(4, dtype=W.dtype), W.T @ targets.T + strength * H.T).T
    fit = (found @ W.T - targets).square().sum() + strength * (found - H).square().sum()
    assert float(fit) / (2 * len(H)) == pytest.approx(loss, rel=1e-9)
    assert float(dnc1(found, Y, K)) == pytest.approx(scatter, rel=1e-9)


def test_samples_that_stay_and_places_without_a_value_do_not_count() -> None:
    moved = torch.cat([H, H[:2]])
    stays = torch.cat([LAST, H[:2]])
    assert float(straightness(path_sums([moved, stays, stays]))) == pytest.approx(1)
    profile = torch.tensor([2.0, math.nan, 1.0], dtype=torch.float64)
    assert float(decreasing_share(profile)) == 1
    assert decreasing_share(profile[:1]).isnan() and spearman(torch.ones(3, dtype=torch.float64)).isnan()
    assert straightness(path_sums([H, H, H])).isnan()
