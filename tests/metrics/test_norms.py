"""Golden values of the norms of rows, and when they have no spread."""

import pytest
import torch
from golden import H, K, Y

from pipeline.metrics import layer_metrics, undefined_reasons


def test_golden_values_are_those_of_the_rows_one_by_one() -> None:
    found = layer_metrics(H, Y, K, families=("norms",))
    lengths = [sum(entry**2 for entry in row) ** 0.5 for row in H.tolist()]
    mean = sum(lengths) / 12
    spread = (sum((length - mean) ** 2 for length in lengths) / 12) ** 0.5
    assert float(found["feature_norm"]) == pytest.approx(mean, rel=1e-12)
    assert float(found["feature_norm_cov"]) == pytest.approx(spread / mean, rel=1e-9)


def test_rows_of_one_length_have_no_spread_and_zeros_have_a_reason() -> None:
    rows = torch.tensor([[3.0, 4.0], [5.0, 0.0], [0.0, -5.0], [-4.0, 3.0]])
    labels = torch.tensor([0, 0, 1, 1])
    found = layer_metrics(rows, labels, 2, families=("norms",))
    assert float(found["feature_norm"]) == 5 and float(found["feature_norm_cov"]) < 1e-7
    nothing = layer_metrics(0 * rows, labels, 2, families=("norms",))
    assert float(nothing["feature_norm"]) == 0 and nothing["feature_norm_cov"].isnan()
    assert undefined_reasons(0 * rows, labels, 2, families=("norms",))["feature_norm_cov"] == "all rows are zero"
