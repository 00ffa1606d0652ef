"""Classes with too few samples are left out: what is measured is what is measured without them."""

import pytest
import torch
from torch import Tensor

from pipeline.metrics import (
    ClassStatistics,
    CollapseMetrics,
    cdnv,
    dnc1,
    layer_metrics,
    metrics,
    registry,
    undefined_reasons,
)

K, WIDTH = 6, 8
KEPT = torch.tensor([1, 2, 4, 5])
SIZES = {"absent": (0, 9, 14, 0, 7, 5), "tiny": (2, 9, 14, 1, 7, 5)}
MIN = {"absent": 1, "tiny": 3}
OF_ALL_ROWS = {"active_units"}
BEYOND = {
    *("next_weight", "last_weight", *registry.BEYOND_A_LAYER),
    *(f"{registry.FOREIGN}{name}" for name in registry.row_values()),
}
NAMES = [name for name, metric in metrics().items() if not set(metric.takes) & BEYOND]
OF_ALL = {name for name, metric in metrics().items() if "counted_units" in metric.takes}
OF_WHOLE_WEIGHT = {"rank_weight", "stable_rank_weight"}


def draw(sizes: tuple[int, ...], seed: int = 0, members: tuple[int, ...] = ()) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows, labels, decisions, and a classifier."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(K), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    means = 2 * torch.randn(*members, K, WIDTH, generator=generator, dtype=torch.float64) + 1
    noise = torch.randn(*members, len(labels), WIDTH, generator=generator, dtype=torch.float64)
    decisions = torch.randint(0, K, (*members, len(labels)), generator=generator)
    weight = torch.randn(*members, K, WIDTH, generator=generator, dtype=torch.float64)
    return means[..., labels, :] + noise, labels, decisions, weight


def without(rows: Tensor, labels: Tensor, decisions: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same without the other classes, the kept ones numbered anew; decisions for others are wrong ones."""
    number = torch.full((K,), K)
    number[KEPT] = torch.arange(len(KEPT))
    own = (number[labels] < K).nonzero().squeeze(-1)
    return (
        rows.index_select(-2, own),
        number[labels[own]],
        number[decisions.index_select(-1, own)],
        weight.index_select(-2, KEPT),
    )


def assert_measured(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    shared = found.keys() & expected.keys() - OF_ALL_ROWS - OF_ALL - OF_WHOLE_WEIGHT - {"classes_left_out"}
    assert {"dnc1", "dnc2", "nc2_simplex", "nc3_duality", "cdnv", "classes_counted"} <= shared
    for name in shared:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-13, msg=lambda text: name + text)  # noqa: B023
    assert (found["classes_counted"] == len(KEPT)).all() and (found["classes_left_out"] == K - len(KEPT)).all()


@pytest.mark.parametrize("members", [(), (2, 3)])
@pytest.mark.parametrize("case", SIZES)
def test_all_metrics_are_those_of_the_other_classes(case: str, members: tuple[int, ...]) -> None:
    rows, labels, decisions, weight = draw(SIZES[case], members=members)
    asked = {"nearest": True, "families": ("all",)}
    found = layer_metrics(rows, labels, K, weight, decisions=decisions, min_samples=MIN[case], **asked)
    less = without(rows, labels, decisions, weight)
    expected = layer_metrics(less[0], less[1], len(KEPT), less[3], decisions=less[2], **asked)
    assert found.keys() == expected.keys() == set(NAMES)
    assert all(value.isfinite().all() for value in found.values())
    assert_measured(found, expected)
    assert undefined_reasons(rows, labels, K, weight, min_samples=MIN[case]) == {}


@pytest.mark.parametrize("covariance", [True, False])
@pytest.mark.parametrize("case", SIZES)
def test_a_stream_leaves_out_the_same_classes(case: str, covariance: bool) -> None:
    rows, labels, decisions, weight = draw(SIZES[case])
    metric = CollapseMetrics(K, WIDTH, covariance, NAMES, min_samples=MIN[case])
    for part in (slice(0, 13), slice(13, 14), slice(14, None)):
        metric.update(rows[part], labels[part])
    for part in (slice(0, 20), slice(20, None)):
        metric.look_again(rows[part], labels[part], decisions[part])
    found = metric.compute(weight=weight)
    less = without(rows, labels, decisions, weight)
    expected = layer_metrics(less[0], less[1], len(KEPT), less[3], decisions=less[2], nearest=True, families=("all",))
    # d x d matrices are of all rows, and cannot be had without some.
    spoilt = {name for name, reason in metric.undefined.items() if "second look" in reason}
    assert ("nc1_pinv" in spoilt) == (case == "tiny" and covariance) and (case == "tiny" or not spoilt)
    assert metric.undefined.keys() == spoilt and all(found.pop(name).isnan().all() for name in spoilt)
    assert_measured(found, expected)


def test_classes_of_one_sample_leave_no_trace_in_the_scatter_of_a_stream() -> None:
    rows, labels, *_ = draw((1, 9, 14, 1, 7, 5))
    metric = CollapseMetrics(K, WIDTH, min_samples=2)
    for part in (slice(0, 13), slice(13, 14), slice(14, None)):
        metric.update(rows[part], labels[part])
    kept = (labels != 0) & (labels != 3)
    expected = layer_metrics(rows[kept], torch.tensor([0, 0, 1, 0, 2, 3])[labels[kept]], 4)
    torch.testing.assert_close(metric.compute()["nc1_pinv"], expected["nc1_pinv"])


def test_one_absent_class_leaves_only_itself_out() -> None:
    rows, labels, *_ = draw((9, 9, 9, 0, 9, 9))
    metric = CollapseMetrics(K, WIDTH)
    metric.update(rows, labels)
    values = metric.compute()
    assert all(value.isfinite() for value in values.values()) and values["classes_left_out"] == 1
    assert dnc1(rows, labels, K).isfinite() and cdnv(rows, labels, K).isfinite()


@pytest.mark.parametrize(("sizes", "least"), [((9, 1, 1, 1, 1, 1), 5), ((1, 1, 1, 1, 1, 1), 2)])
def test_fewer_than_two_classes_that_count_have_no_values_and_a_reason(sizes: tuple[int, ...], least: int) -> None:
    rows, labels, decisions, weight = draw(sizes)
    values = layer_metrics(rows, labels, K, weight, decisions=decisions, nearest=True, min_samples=least)
    told = undefined_reasons(rows, labels, K, weight, decisions=decisions, nearest=True, min_samples=least)
    counted = sum(size >= least for size in sizes)
    assert values["classes_counted"] == counted and values["classes_left_out"] == K - counted
    for name in ("dnc1", "dnc1_balanced", "nc1_pinv", "dnc2", "nc2_simplex", "nc3_duality", "ncm_accuracy", "nc4"):
        assert values[name].isnan() and "fewer than two classes" in told[name], name


def test_the_means_of_the_training_split_say_which_classes_of_another_count() -> None:
    rows, labels, *_ = draw((0, 9, 14, 3, 7, 5))
    reference = ClassStatistics.from_features(rows, labels, K)
    others, other_labels, *_ = draw((4, 4, 4, 0, 4, 4), seed=1)
    found = layer_metrics(others, other_labels, K, reference=reference, nearest=True)
    known = other_labels > 0
    own = layer_metrics(others[known], other_labels[known], K)
    assert found["classes_counted"] == 4 and found["dnc1"] == own["dnc1"]
    means = torch.stack([rows[labels == c].mean(0) for c in range(1, K)])
    nearest = torch.cdist(others[known], means).argmin(1) + 1
    assert float(found["ncm_accuracy"]) == pytest.approx(float((nearest == other_labels[known]).double().mean()))


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "3"])
def test_min_samples_is_an_int_of_at_least_one(bad: object) -> None:
    rows, labels, *_ = draw((9, 9, 9, 9, 9, 9))
    for measure in (
        lambda: layer_metrics(rows, labels, K, min_samples=bad),
        lambda: CollapseMetrics(K, WIDTH, min_samples=bad),
    ):
        with pytest.raises(ValueError, match="min_samples must be an int of at least 1"):
            measure()
