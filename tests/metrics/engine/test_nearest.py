"""The nearest class mean by products in float32 is that of float64."""

import math

import pytest
import torch

from pipeline.metrics import CollapseMetrics
from pipeline.metrics.engine import native_nearest, nearest
from pipeline.metrics.engine import rows as rows_module
from pipeline.metrics.engine.many_classes import MANY
from pipeline.metrics.engine.nearest import Nearest


@pytest.fixture(autouse=True, params=["kernel", "PyTorch"])
def way(monkeypatch, request):
    """Both ways of products in float32."""
    monkeypatch.setattr(nearest, "TILE", 16)
    if request.param == "PyTorch":
        monkeypatch.setattr(nearest, "library", lambda: None)
    elif native_nearest.library() is None:
        pytest.skip("no working C++ compiler")
    return request.param


@pytest.mark.parametrize(("classes", "width", "count"), [(1, 1, 1), (33, 3, 7), (64, 17, 8), (200, 40, 131)])
def test_any_number_of_rows_and_classes_gives_the_two_least_scores(classes, width, count):
    generator = torch.Generator().manual_seed(classes)
    means, rows = (torch.randn(size, width, generator=generator) for size in (classes, count))
    half = torch.rand(classes, generator=generator)
    half[0] = math.inf if classes > 1 else 0.5
    search = Nearest(means.double(), torch.zeros(1, classes, dtype=torch.float64))
    found, apart = search._quick(rows, half / search._scale.float())
    scores = half.double() / search._scale - rows.double() @ (means.double() / search._scale).T
    least = scores.sort(-1).values
    assert torch.equal(found, scores.argmin(-1))
    expected = least[:, 1] - least[:, 0] if classes > 1 else torch.full((count,), math.inf, dtype=torch.float64)
    torch.testing.assert_close(apart, expected, rtol=0, atol=1e-5)


def test_what_is_no_number_is_sure_of_nothing():
    means = torch.eye(40, dtype=torch.float64)
    means[3] = math.nan
    search = Nearest(means, torch.zeros(1, 40, dtype=torch.float64))
    assert search.of(means[:2]).tolist() == search._exact(means[:2]).tolist()


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("spread", [3.0, 1e-6, 0.0])  # far apart; nearer than float32 can tell; all at one place
def test_it_is_the_least_distance_in_float64(monkeypatch, spread, scale):
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    means = scale * (spread * normal(50, 7) + normal(1, 7))
    rows = scale * (spread * normal(300, 7) + normal(1, 7))
    half = means.square().sum(-1)[None] / 2
    half[0, 5] = math.inf  # a class that does not count
    search, again = Nearest(means, half), []
    exact = search._exact
    monkeypatch.setattr(search, "_exact", lambda some: again.append(len(some)) or exact(some))
    scores = half - rows @ means.T
    assert torch.equal(search.of(rows), scores.argmin(-1)) or spread == 0
    assert bool((search.of(rows) == 5).sum() == 0)
    if spread == 3.0:
        assert sum(again) < 2 * len(rows) / 10  # it is seldom that float32 does not do
    else:
        assert sum(again) == 2 * len(rows)


def test_the_first_of_equally_near_means_is_found_and_products_of_shorter_types_are_not_trusted(monkeypatch):
    means = torch.eye(4, dtype=torch.float64).repeat(10, 1)
    search = Nearest(means, means.square().sum(-1)[None] / 2)
    assert search.of(means).tolist() == list(range(4)) * 10
    assert search.of(means[:0]).tolist() == []
    before = torch.backends.mkldnn.matmul.fp32_precision
    monkeypatch.setattr(Nearest, "_quick", None)  # would fail
    try:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
        assert search.of(means).tolist() == list(range(4)) * 10
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


def test_what_a_second_look_seeks_among_is_prepared_once(monkeypatch):
    """And anew after further rows, which move the class means."""
    made = []
    monkeypatch.setattr(rows_module, "Nearest", lambda *of: made.append(1) or Nearest(*of))
    source = torch.Generator().manual_seed(0)
    means = torch.randn(MANY, 5, generator=source)
    labels = torch.arange(MANY).repeat(2)
    features = means[labels] + torch.randn(len(labels), 5, generator=source)
    metric = CollapseMetrics(MANY, 5, metrics=["ncm_accuracy"])
    for shift, count in ((0.0, 1), (3.0, 2)):
        shown = features + shift * labels[:, None]
        metric.update(shown, labels)
        for batch in torch.arange(len(labels)).split(100):
            metric.look_again(shown[batch], labels[batch])
        assert len(made) == count
        statistics = metric.statistics
        expected = (
            torch.cdist(shown.double(), statistics.means, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
            == labels
        )
        assert float(metric.compute()["ncm_accuracy"]) == float(expected.double().mean())
