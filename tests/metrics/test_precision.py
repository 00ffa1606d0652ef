"""Decompositions of class means stop at the precision that the features were computed in."""

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor

from pipeline.measure.heads import measure_head
from pipeline.metrics import CollapseMetrics, layer_metrics, undefined_reasons
from pipeline.metrics.engine.statistics import roundoff_of

HALVES = [torch.bfloat16, torch.float16]
LOW = [torch.float32, *HALVES]
CASES = [(100, 8, 20), (10, 4, 30), (200, 150, 3)]


def hidden_rows(classes: int, width: int, samples: int, spread: float = 0.1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(classes)
    labels = torch.arange(classes).repeat(samples)
    means = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    return means[labels] + spread * torch.randn(len(labels), width, generator=generator, dtype=torch.float64), labels


def logits(classes: int, width: int, samples: int, dtype: torch.dtype, spread: float = 0.1) -> tuple[Tensor, Tensor]:
    """Outputs of a classifier on `width` features, computed in `dtype`: their means span `width` directions."""
    rows, labels = hidden_rows(classes, width, samples, spread)
    weight = torch.randn(classes, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return rows.to(dtype) @ weight.to(dtype).T, labels


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize(("classes", "width", "samples"), CASES)
def test_dependent_means_are_truncated_to_the_directions_they_span(
    classes: int, width: int, samples: int, dtype: torch.dtype
) -> None:
    exact = layer_metrics(*logits(classes, width, samples, torch.float64), classes)
    assert exact["effective_rank"] == width and math.isinf(exact["dnc2"])
    rows, labels = logits(classes, width, samples, dtype)
    found = layer_metrics(rows, labels, classes)
    assert found["effective_rank"] == width and found["rank_means"] == width
    assert math.isinf(found["dnc2"]) and "precision of the features" in undefined_reasons(rows, labels, classes)["dnc2"]
    assert found["nc1_pinv"] == pytest.approx(float(exact["nc1_pinv"]), rel=0.1 if dtype in HALVES else 1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_the_cut_off_follows_scale_and_offset_of_the_layer(scale: float, offset: float) -> None:
    rows, labels = logits(100, 8, 20, torch.float64)
    expected = layer_metrics(rows, labels, 100)["nc1_pinv"]
    found = layer_metrics((scale * (rows + offset)).float(), labels, 100)
    assert found["effective_rank"] == 8
    assert found["nc1_pinv"] == pytest.approx(float(expected), rel=1e-3)


@pytest.mark.parametrize("dtype", [*LOW, torch.float64])
@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_real_directions_are_kept(dtype: torch.dtype, spread: float) -> None:
    rows, labels = hidden_rows(10, 64, 30, spread)
    found = layer_metrics(rows.to(dtype), labels, 10)
    assert found["effective_rank"] == 9 and found["rank_means"] == 10 and math.isfinite(found["dnc2"])


@pytest.mark.parametrize("covariance", [True, False])
def test_a_stream_carries_the_coarsest_precision(covariance: bool) -> None:
    rows, labels = logits(10, 4, 30, torch.bfloat16)
    expected = layer_metrics(rows, labels, 10)
    shards = [CollapseMetrics(10, 10, covariance) for _ in range(3)]
    for index, start in enumerate(range(0, 300, 50)):
        part = rows[start : start + 50]
        shards[index % 3].update(part.double() if index % 3 else part, labels[start : start + 50])
    whole = shards[2]
    whole.update(rows[:0].half(), labels[:0])  # nothing came in half precision
    for shard in shards[:2]:
        whole.merge_state(shard)
    copies = [whole, pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)]
    whole.persistent(True)
    restored = CollapseMetrics(10, 10, covariance)
    restored.persistent(True)
    restored.load_state_dict(whole.state_dict())
    for metric in [*copies, restored]:
        metric.update(rows[:0], labels[:0])
        values = metric.compute()
        assert metric.statistics.roundoff == roundoff_of(torch.bfloat16)
        assert values["effective_rank"] == 4 and math.isinf(values["dnc2"])
        if covariance:
            assert values["nc1_pinv"] == pytest.approx(float(expected["nc1_pinv"]), rel=1e-10)


def test_a_state_dict_of_before_the_precision_was_carried_is_taken_as_of_float64() -> None:
    rows, labels = hidden_rows(4, 6, 10)
    metric, restored = CollapseMetrics(4, 6), CollapseMetrics(4, 6)
    metric.persistent(True)
    restored.persistent(True)
    metric.update(rows, labels)
    old = {name: value[:-1] for name, value in metric.state_dict().items()}
    assert old.keys() == {"state"}
    restored.load_state_dict(old)
    restored.update(rows[:0], labels[:0])
    for name, value in restored.compute().items():
        assert value == metric.compute()[name], name


def test_means_that_differ_by_rounding_alone_have_no_spread_along_them() -> None:
    rows = 1 + 2.0**-7 * (torch.arange(12, dtype=torch.float64) % 4 == 1).reshape(6, 2)
    labels = torch.arange(6) % 2
    assert layer_metrics(rows, labels, 2)["effective_rank"] == 1
    found = layer_metrics(rows.bfloat16(), labels, 2)
    assert found["effective_rank"] == 0 and found["nc1_pinv"].isnan()
    assert "rounding of the features" in undefined_reasons(rows.bfloat16(), labels, 2)["nc1_pinv"]


def test_a_head_knows_what_its_features_were_computed_in() -> None:
    rows, labels = logits(10, 4, 30, torch.float32)
    weights = (torch.randn(1, 12, 10, dtype=torch.float64), torch.randn(1, 10, 12, dtype=torch.float64))
    told = list(measure_head(rows.double(), weights, labels, 10, "linear", computed_in=torch.float32))
    assert [float(layer.values["effective_rank"]) for layer in told] == [4, 4, 4]
    assert all(math.isinf(layer.values["dnc2"]) for layer in told)
