"""Golden values of foreign rows on the inputs T and O."""

import pytest
import torch
from golden import H, K, O, Y

from pipeline.metrics import ClassStatistics, layer_metrics, undefined_reasons
from pipeline.metrics.core import pooled
from pipeline.metrics.engine.settings import MeasureSettings
from pipeline.metrics.foreign import leading_directions

ASKED = {"families": ("foreign",), "foreign_directions": 2}


def test_golden_values() -> None:
    found = layer_metrics(H, Y, K, foreign=O, **ASKED)
    expected = {"nc5": 0.464222195720, "neco_auroc": 13 / 15, "neco_fpr95": 0.8}
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-9)


def test_golden_scores() -> None:
    statistics = ClassStatistics.from_features(H, Y, K, extras=(pooled,))
    onto = leading_directions(statistics, statistics.extras["pooled"], MeasureSettings(foreign_directions=2))
    score = lambda rows: ((rows @ onto).norm(dim=1) / rows.norm(dim=1)).tolist()  # noqa: E731
    assert score(H[[0, 11]]) == pytest.approx([0.388051265050, 0.766794511220], rel=1e-9)
    assert score(O[[0, 4]]) == pytest.approx([0.435230852428, 0.607534872713], rel=1e-9)


def test_as_many_directions_as_classes_less_one_unless_told() -> None:
    assert layer_metrics(H, Y, K, families=("foreign",), foreign=O) == layer_metrics(H, Y, K, foreign=O, **ASKED)


def test_rows_held_against_themselves_are_even() -> None:
    found = layer_metrics(H, Y, K, foreign=H, **ASKED)
    assert float(found["neco_auroc"]) == pytest.approx(0.5) and float(found["neco_fpr95"]) == 1


def test_what_is_undefined_says_why() -> None:
    none = undefined_reasons(H, Y, K, foreign=O[:0], **ASKED)
    assert none["nc5"] == "there are no foreign rows" and "no foreign ones" in none["neco_auroc"]
    broken = O.clone()
    broken[1, 1] = torch.nan
    assert set(undefined_reasons(H, Y, K, foreign=broken, **ASKED)) == {"nc5", "neco_auroc", "neco_fpr95"}
    with pytest.raises(ValueError, match=r"the family 'foreign' needs foreign, which is not given\."):
        layer_metrics(H, Y, K, **ASKED)
    with pytest.raises(ValueError, match=r"foreign must have 4 columns"):
        layer_metrics(H, Y, K, foreign=O[:, :3], **ASKED)


def test_rows_in_one_direction_are_ties_however_long_they_are() -> None:
    along = torch.tensor([[0.3, 0.1, 0.0, 0.7]], dtype=torch.float64)
    lengths = torch.linspace(0.1, 3, 7, dtype=torch.float64)[:, None]
    found = layer_metrics(
        torch.cat([lengths * along, H[:2]]), torch.tensor([0, 1, 2] * 3), K, foreign=lengths[:5] * along / 7, **ASKED
    )
    known = layer_metrics(
        torch.cat([along.expand(7, 4), H[:2]]), torch.tensor([0, 1, 2] * 3), K, foreign=along, **ASKED
    )
    assert 0 < float(found["neco_auroc"]) < 1 and float(known["neco_auroc"]) * 9 % 0.5 == pytest.approx(0, abs=1e-9)
    assert float(found["neco_auroc"]) * 9 % 0.5 == pytest.approx(0, abs=1e-9)  # seven halves, and two of nine rows
