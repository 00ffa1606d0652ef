"""Family `probe`: golden values, and scikit-learn's ridge regression on both splits."""

import numpy as np
import pytest
import torch
from golden import H as ROWS
from golden import K
from golden import Y as LABELS
from golden_ways import WAYS, measured, streamed
from sklearn.linear_model import Ridge

from pipeline.metrics import CollapseMetrics, layer_metrics
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.metrics.engine.statistics import ClassStatistics
from pipeline.metrics.probe import probe_coefficients
from pipeline.metrics.registry import statistics

GOLDEN = {"probe_accuracy": 11 / 12, "probe_loss": 0.068602185757}


def with_scatter(rows: torch.Tensor, labels: torch.Tensor) -> ClassStatistics:
    return ClassStatistics.from_features(rows, labels, K, extras=(statistics()["pooled"],))


def test_golden_values() -> None:
    assert measured("probe") == pytest.approx(GOLDEN, rel=1e-9)
    found = with_scatter(ROWS, LABELS)
    slopes = probe_coefficients(found, found.extras["pooled"], MeasureSettings())
    outputs = (ROWS[0] - ROWS.mean(0)) @ slopes + found.counts / 12
    assert outputs.tolist() == pytest.approx([0.740337911991, 0.020485647660, 0.239176440349], rel=1e-9)


@pytest.mark.parametrize("sizes", WAYS)
def test_golden_values_of_streams(sizes: list[int]) -> None:
    assert streamed("probe", sizes=sizes) == pytest.approx(GOLDEN, rel=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("ridge", [1e-2, 0.5])
def test_the_probe_is_a_ridge_regression_on_the_training_rows(offset: float, ridge: float) -> None:
    other = ROWS.flip(0).roll(1, 1) + 0.1
    other_labels = LABELS.flip(0)
    outputs = Ridge(12 * ridge).fit(ROWS, np.eye(K)[LABELS]).predict(other)
    expected = {
        "probe_accuracy": float((outputs.argmax(1) == other_labels.numpy()).mean()),
        "probe_loss": float(((outputs - np.eye(K)[other_labels]) ** 2).sum(1).mean() / 2),
    }
    training = with_scatter(ROWS + offset, LABELS)
    found = layer_metrics(other + offset, other_labels, K, reference=training, families=["probe"], probe_ridge=ridge)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-8)
    stream = CollapseMetrics(K, 4, families=["probe"], probe_ridge=ridge)
    stream.update(other + offset, other_labels)
    stream.look_again(other + offset, other_labels, reference=training)
    assert {n: float(v) for n, v in stream.compute(reference=training).items()} == pytest.approx(expected, rel=1e-8)


def test_a_reference_without_scatter_is_measured_again_where_its_rows_are_at_hand() -> None:
    plain = ClassStatistics.from_features(ROWS, LABELS, K)
    how = {"reference": plain, "families": ["probe"]}
    assert layer_metrics(ROWS, LABELS, K, **how)["probe_loss"] == pytest.approx(GOLDEN["probe_loss"], rel=1e-9)
    with pytest.raises(ValueError, match="must hold pooled, or the rows themselves"):
        layer_metrics(ROWS, LABELS, K, **{**how, "reference": plain.to("cpu")})


def test_classes_that_do_not_count_are_no_answer() -> None:
    kept = LABELS < 2
    outputs = Ridge(10 * 1e-2).fit(ROWS[kept], np.eye(2)[LABELS[kept]]).predict(ROWS[kept])
    found = measured("probe", min_samples=3)
    assert found["probe_loss"] == pytest.approx(float(((outputs - np.eye(2)[LABELS[kept]]) ** 2).sum(1).mean() / 2))
    assert found["probe_accuracy"] == float((outputs.argmax(1) == LABELS[kept].numpy()).mean())


def test_a_larger_penalty_fits_less() -> None:
    losses = [measured("probe", probe_ridge=ridge)["probe_loss"] for ridge in (1e-6, 1e-2, 1.0, 1e6)]
    assert losses == sorted(losses) and losses[-1] == pytest.approx((1 - (36 + 16 + 4) / 144) / 2, rel=1e-4)
