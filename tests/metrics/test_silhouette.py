"""Family `silhouette`: golden values, and scikit-learn's."""

import pytest
import torch
from golden import H as ROWS
from golden import K
from golden import Y as LABELS
from golden_ways import WAYS, measured, streamed
from sklearn.metrics import silhouette_score

from pipeline.metrics import layer_metrics

GOLDEN = {"silhouette_sqeuclidean": 0.397011629839, "silhouette_cosine": 0.371633834695}


def test_golden_values() -> None:
    assert measured("silhouette") == pytest.approx(GOLDEN, rel=1e-9)


@pytest.mark.parametrize("sizes", WAYS)
def test_golden_values_of_streams(sizes: list[int]) -> None:
    assert streamed("silhouette", sizes=sizes) == pytest.approx(GOLDEN, rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_silhouettes_are_those_of_scikit_learn(offset: float) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 9 + [1] * 5 + [2] + [3] * 6)
    rows = torch.randn(21, 5, generator=generator, dtype=torch.float64) + labels[:, None] + offset
    found = layer_metrics(rows, labels, 4, families=["silhouette"])
    for name, metric in (("silhouette_sqeuclidean", "sqeuclidean"), ("silhouette_cosine", "cosine")):
        assert float(found[name]) == pytest.approx(silhouette_score(rows.numpy(), labels.numpy(), metric=metric))


def test_rows_without_a_direction_and_classes_that_do_not_count_are_left_out() -> None:
    rows = torch.cat([ROWS, torch.zeros(2, 4, dtype=torch.float64)])
    labels = torch.cat([LABELS, torch.tensor([0, 1])])
    found = layer_metrics(rows, labels, K, families=["silhouette"])
    assert float(found["silhouette_cosine"]) == pytest.approx(GOLDEN["silhouette_cosine"], rel=1e-12)
    fewer, kept = measured("silhouette", min_samples=3), LABELS < 2
    assert fewer == pytest.approx(measured("silhouette", rows=ROWS[kept], labels=LABELS[kept]), rel=1e-12)
    for name, metric in (("silhouette_sqeuclidean", "sqeuclidean"), ("silhouette_cosine", "cosine")):
        expected = silhouette_score(ROWS[kept].numpy(), LABELS[kept].numpy(), metric=metric)
        assert fewer[name] == pytest.approx(expected)


def test_collapsed_classes_have_silhouette_one_and_an_offset_does_not_matter() -> None:
    assert measured("silhouette", rows=ROWS[[0, 6, 10]][LABELS]) == {name: 1.0 for name in GOLDEN}
    moved = measured("silhouette", rows=ROWS + 1e6)["silhouette_sqeuclidean"]
    assert moved == pytest.approx(GOLDEN["silhouette_sqeuclidean"], rel=1e-9)
