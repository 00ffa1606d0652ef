"""Odd rows, groups and settings through all families: a value, NaN with the right reason, or a sentence."""

import pytest
import torch
from torch import Tensor

from pipeline.metrics import CollapseMetrics, layer_metrics, undefined_reasons

K, WIDTH, COUNT = 3, 4, 24


def given(**changes: object) -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    labels = torch.arange(COUNT) % K
    arguments = {"features": normal(COUNT, WIDTH) + 2 * normal(K, WIDTH)[labels], "labels": labels, "num_classes": K}
    arguments |= {"weight": normal(K, WIDTH), "decisions": labels, "nearest": True, "groups": torch.arange(COUNT) // 12}
    arguments |= {"foreign": normal(5, WIDTH), "previous": normal(COUNT, 3), "gradients": torch.eye(K)}
    return arguments | {"families": ("all",)} | changes


def measured(**changes: object) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Values and reasons; every value that is not finite has one."""
    arguments = given(**changes)
    values, reasons = layer_metrics(**arguments), undefined_reasons(**arguments)
    assert {name for name, value in values.items() if not value.isfinite().all()} == set(reasons)
    return values, reasons


@pytest.mark.parametrize("changes", [{"min_samples": 1000}, {"features": torch.zeros(0, WIDTH)}])
def test_no_rows_that_count_are_no_error(changes: dict) -> None:
    if "features" in changes:
        none = torch.zeros(0, dtype=torch.int64)
        changes |= {"labels": none, "decisions": none, "groups": none, "previous": torch.zeros(0, 3)}
    _, reasons = measured(**changes)
    assert reasons["neco_fpr95"] == reasons["neco_auroc"] == "there are no known rows or no foreign ones"
    assert reasons["cos_intra_min"].startswith("no row has a direction")


def test_rows_of_zero_have_no_direction_and_are_not_called_absent() -> None:
    features = given()["features"]
    features[given()["labels"] == 1] = 0
    _, reasons = measured(features=features)
    assert reasons["cos_intra_mean"] == reasons["silhouette_cosine"] == "no row of some class has a direction"
    assert "cos_centred_intra_min" not in reasons


def test_cosines_of_groups_know_neither_size_nor_means_of_zero() -> None:
    values, _ = measured()
    tiny, _ = measured(features=given()["features"] * 1e-200)
    assert float(tiny["group_cosine"]) == pytest.approx(float(values["group_cosine"]), rel=1e-12)
    features, rows = given()["features"], given()["labels"] == 0
    features[rows & (torch.arange(COUNT) < 12)] = 0
    own = float(layer_metrics(**given(features=features))["group_cosine"])
    others = [
        torch.cosine_similarity(*(features[(given()["labels"] == c) & half].mean(0) for half in halves()), dim=0)
        for c in (1, 2)
    ]
    assert own == pytest.approx(float(sum(others)) / 2)
    _, reasons = measured(features=torch.zeros(COUNT, WIDTH))
    assert reasons["group_cosine"] == "every class has a mean of zero in all groups but one"


def halves() -> tuple[Tensor, Tensor]:
    return torch.arange(COUNT) < 12, torch.arange(COUNT) >= 12


def test_what_averages_to_zero_has_no_variation() -> None:
    rows, labels = torch.tensor([[1.0], [1.5], [-1.0], [-1.5]]), torch.tensor([0, 0, 1, 1])
    asked = {"features": rows, "labels": labels, "num_classes": 2, "weight": torch.ones(2, 1), "families": ("kernels",)}
    assert layer_metrics(**asked)["dual_cov"].isnan()
    assert undefined_reasons(**asked)["dual_cov"] == "the cosines average to zero"


def test_gradients_that_are_no_mean_of_squares_say_so() -> None:
    _, reasons = measured(gradients=-torch.eye(K))
    assert reasons["nfa"] == "the gradients are no mean of g g^T: their trace is negative"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": torch.full((COUNT,), 10**9)}, "groups must be numbers below 10000, each is measured"),
        ({"families": None}, "families must be a list of names such as 'core', got None"),
        ({"families": ("cosin",)}, "did you mean cosine"),
        ({"probe_ridge": float("inf")}, "probe_ridge must be a finite number > 0, got inf"),
        ({"probe_ridge": float("nan")}, "probe_ridge must be a finite number > 0, got nan"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        layer_metrics(**given(**changes))
    if "groups" not in changes:
        with pytest.raises(ValueError, match=said):
            CollapseMetrics(K, WIDTH, **({"families": ("all",)} | changes))
