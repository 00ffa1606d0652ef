"""Golden values of groups on the input T, and the law of total variance."""

import pytest
import torch
from golden import G, H, K, W, Y

from pipeline.metrics import ClassStatistics, dnc1, layer_metrics, undefined_reasons
from pipeline.metrics.groups import group_cosines

DECISIONS = (H @ W.T).argmax(1)


def measured(**more) -> dict[str, float]:
    found = layer_metrics(H, Y, K, W, families=("groups",), groups=G, decisions=DECISIONS, nearest=True, **more)
    return {name: float(value) for name, value in found.items()}


def test_golden_values() -> None:
    found = measured()
    expected = {
        "group_share": 0.340034413739,
        "group_gap": 1.263058701252,
        "group_cosine": (0.931422977809 + 0.684723923997 + 0.701604450270) / 3,
        "dnc1/group=0": 0.329731848906,
        "dnc1/group=1": 0.425603415559,
        "cdnv/group=0": 0.092330945180,
        "cdnv/group=1": 0.136973374395,
        "dnc2/group=0": 1.897604274225,
        "dnc2/group=1": 4.267141104851,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    own = [ClassStatistics.from_features(H[q == G], Y[q == G], K) for q in (0, 1)]
    cosines = group_cosines(ClassStatistics.from_features(H, Y, K), own)
    assert cosines.tolist() == pytest.approx([0.931422977809, 0.684723923997, 0.701604450270], rel=1e-9)


def test_scatter_is_what_cells_have_within_and_between() -> None:
    found = measured()
    whole = ClassStatistics.from_features(H, Y, K)
    within = sum(float(ClassStatistics.from_features(H[q == G], Y[q == G], K).scatter.sum()) for q in (0, 1)) / len(H)
    assert within == pytest.approx(1.069900172585, rel=1e-9)
    assert within + found["group_share"] * float(whole.within_trace) == pytest.approx(1.621145397361, rel=1e-9)


def test_decisions_are_counted_in_each_group() -> None:
    found = measured()
    for q in (0, 1):
        own = q == G
        assert found[f"accuracy/group={q}"] == pytest.approx(float((DECISIONS == Y)[own].double().mean()))
        told = [((c == DECISIONS) & (c == Y) & own).sum() for c in range(K)]
        size = [((c == DECISIONS) & own).sum() + ((c == Y) & own).sum() for c in range(K)]
        assert found[f"f1/group={q}"] == pytest.approx(
            sum(float(2 * t / s) for t, s in zip(told, size, strict=True)) / K
        )
        assert found[f"samples/group={q}"] == 6


def test_of_two_classes_the_second_is_the_positive_one_and_without_it_there_is_no_f1() -> None:
    labels, decided = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 1, 1, 1, 0])
    asked = {"families": ("groups",), "groups": torch.tensor([0, 0, 0, 1, 1]), "decisions": decided}
    found = layer_metrics(H[:5], labels, 2, **asked)
    assert float(found["f1"]) == pytest.approx(2 * 2 / (3 + 3)) and float(found["true_positive_rate"]) == pytest.approx(
        2 / 3
    )
    none = {"families": ("groups",), "groups": torch.tensor([0, 0, 0, 1, 1]), "decisions": decided}
    labels = torch.tensor([0, 0, 0, 1, 1])
    told = undefined_reasons(H[:5], labels, 2, **none)
    assert layer_metrics(H[:5], labels, 2, **none)["f1/group=0"].isnan()
    assert told["f1/group=0"] == "the class that counts has no samples" and "one class only" in told["dnc1/group=0"]


def test_rows_that_coincide_have_no_share_and_no_gap() -> None:
    rows = H[[0, 6, 10]][Y]
    found = layer_metrics(rows, Y, K, families=("groups",), groups=G)
    told = undefined_reasons(rows, Y, K, families=("groups",), groups=G)
    assert found["group_share"].isnan() and "coincide" in told["group_share"] and float(found["group_gap"]) == 0


def test_labels_that_were_given_are_measured_too() -> None:
    given = Y.clone()
    given[:2] = 1
    found = measured(given=given)
    assert found["dnc1/labels=given"] == pytest.approx(float(dnc1(H, given, K))) != found["dnc1/group=0"]


@pytest.mark.parametrize("groups", [G.float(), G[:5], G - 1])
def test_groups_that_are_none_are_refused(groups: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"^groups must be "):
        layer_metrics(H, Y, K, families=("groups",), groups=groups)
