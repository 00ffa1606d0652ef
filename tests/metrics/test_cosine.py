"""Golden values of the cosines on the input T of the specification, and rows without a direction."""

import math

import pytest
import torch
from golden import H, K, W, Y

from pipeline.metrics import layer_metrics, undefined_reasons
from pipeline.metrics.cosine import inter, intra, intra_off
from pipeline.metrics.engine.statistics import ClassStatistics

GOLDEN = {
    "cos_intra_min": 0.544609511705,
    "cos_intra_mean": 0.692053071514,
    "cos_intra_off": (0.616896973241 + 0.392812682273 + 0.701604450270) / 3,
    "cos_inter_max": 0.292603484693,
    "cos_inter_mean": 0.026605160911,
    "cos_centred_intra_min": 0.427179642833,
    "cos_centred_intra_mean": (0.427179642833 + 0.641093157847 + 0.721849799068) / 3,
    "cos_centred_inter_max": -0.116445503540,
    "cos_centred_inter_mean": -(0.452313853729 + 0.181961964942 + 0.116445503540) / 3,
    "opposite_pairs": 0.0,
    "orthogonal_pairs": 1 / 3,
    "nc3_cosine": 0.484353030764,
    "zero_rows": 0.0,
}


def test_golden_values() -> None:
    found = layer_metrics(H, Y, K, W, families=("cosine",))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(GOLDEN, rel=1e-9)


def test_golden_values_of_classes_and_pairs() -> None:
    unit = ClassStatistics.from_features(H, Y, K, views=("unit",)).views["unit"]
    assert intra(unit).tolist() == pytest.approx([0.680747477701, 0.544609511705, 0.850802225135], rel=1e-9)
    assert intra_off(unit).tolist() == pytest.approx([0.616896973241, 0.392812682273, 0.701604450270], rel=1e-9)
    assert inter(unit).tolist() == pytest.approx([-0.206027128264, 0.292603484693, -0.006760873694], rel=1e-9)


def test_rows_of_norm_zero_are_left_out_and_counted() -> None:
    rows = torch.cat([H, torch.zeros(2, H.shape[1], dtype=H.dtype)])
    found = layer_metrics(rows, torch.cat([Y, torch.tensor([0, 2])]), K, W, families=("cosine",))
    assert found.pop("zero_rows") == 2
    same = [name for name in GOLDEN if "centred" not in name and name != "zero_rows"]
    assert {name: float(found[name]) for name in same} == pytest.approx({n: GOLDEN[n] for n in same}, rel=1e-12)


def test_members_leave_out_rows_of_their_own() -> None:
    both = torch.stack([H, H])
    both[1, 0] = 0
    found = layer_metrics(both, Y, K, W, families=("cosine",))
    assert found["zero_rows"].tolist() == [0, 1]
    alone = layer_metrics(both[1], Y, K, W, families=("cosine",))
    assert all(float(found[name][1]) == float(alone[name]) for name in GOLDEN)


def test_squares_neither_overflow_nor_vanish() -> None:
    for scale in (1e-200, 1e150):
        found = layer_metrics(scale * H, Y, K, families=("cosine",))
        assert float(found["cos_intra_min"]) == pytest.approx(GOLDEN["cos_intra_min"], rel=1e-12)


def test_what_is_undefined_says_why() -> None:
    rows = H.clone()
    rows[Y == 2] = 0
    for_zero = undefined_reasons(rows, Y, K, W, families=("cosine",))
    assert for_zero["cos_intra_min"] == "no row of some class has a direction"
    weight = W.clone()
    weight[1] = 0
    assert undefined_reasons(H, Y, K, weight, families=("cosine",)) == {"nc3_cosine": "a row of the weight is zero"}
    one_each = layer_metrics(H[[0, 6, 10]], Y[[0, 6, 10]], K, families=("cosine",))
    assert math.isnan(one_each["cos_intra_off"]) and one_each["cos_intra_min"] == pytest.approx(1)


def test_pairs_of_an_orthoplex_are_opposite_or_orthogonal() -> None:
    """Six classes on the axes of three dimensions, of any length; a bent one leaves its four pairs of each kind."""
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double() * torch.tensor([1.0, 2, 3, 4, 5, 6])[:, None]
    found = layer_metrics(
        axes.repeat_interleave(2, dim=0), torch.arange(6).repeat_interleave(2), 6, families=("cosine",)
    )
    assert float(found["opposite_pairs"]) == pytest.approx(3 / 15) and float(found["orthogonal_pairs"]) == 12 / 15
    axes[0] = torch.tensor([1.0, 0.06, 0.0])
    found = layer_metrics(axes, torch.arange(6), 6, families=("cosine",))
    assert float(found["opposite_pairs"]) == pytest.approx(3 / 15) and float(found["orthogonal_pairs"]) == 10 / 15
