"""Families `spectrum` and `class_spectrum`: golden values, decompositions of the rows themselves."""

import pytest
import torch
from golden import H as ROWS
from golden import K
from golden import Y as LABELS
from golden_ways import WAYS, measured, streamed

from pipeline.metrics import layer_metrics, undefined_reasons
from pipeline.metrics.functions.class_spectra import class_spectra

GOLDEN = {
    "erank": 3.711549638447,
    "erank_uncentred": 3.852781931154,
    "participation": 2.633881692726,
    "participation_uncentred": 3.078501241588,
    "erank_means": 1.984126240736,
    "stable_rank_within": 2.786513115040,
    "negativity": 0.377253164748,
    "negative_energy": 0.144679809813,
}
OF_CLASSES = {
    "erank": [3.418101858931, 2.854435422839, 1],
    "participation": [2.292183740080, 2.376475524723, 1],
    "stable_rank": [1.758763379718, 1.947736034280, 1],
}


def test_golden_values() -> None:
    found = measured("spectrum", "class_spectrum")
    assert {name: found[name] for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-9)
    of_classes = class_spectra(ROWS, LABELS, K)
    for name, values in OF_CLASSES.items():
        assert of_classes[name].tolist() == pytest.approx(values, rel=1e-9)
        assert found[f"{name}_class"] == pytest.approx(sum(values) / 3, rel=1e-9)


@pytest.mark.parametrize("sizes", WAYS)
def test_golden_values_of_streams(sizes: list[int]) -> None:
    found = streamed("spectrum", "class_spectrum", sizes=sizes)
    assert {name: found[name] for name in GOLDEN} == pytest.approx(GOLDEN, rel=1e-9)
    for name, values in OF_CLASSES.items():
        assert found[f"{name}_class"] == pytest.approx(sum(values) / 3, rel=1e-9)


def test_spectra_are_those_of_the_rows() -> None:
    found = measured("spectrum")
    means = torch.stack([ROWS[c == LABELS].mean(0) for c in range(K)])
    for matrix, suffix in ((ROWS - ROWS.mean(0), ""), (ROWS, "_uncentred"), (means - means.mean(0), "_means")):
        values = torch.linalg.svdvals(matrix)
        values = values[values > 1e-12]
        shares, squares = values / values.sum(), values**2
        assert found[f"erank{suffix}"] == pytest.approx(float((-(shares * shares.log()).sum()).exp()), rel=1e-9)
        ratio = squares.sum() ** 2 / (squares**2).sum()
        assert found[f"participation{suffix}"] == pytest.approx(float(ratio), rel=1e-9)
        if suffix != "_means":
            assert found[f"stable_rank{suffix}"] == pytest.approx(float(squares.sum() / squares[0]), rel=1e-9)


def test_classes_that_do_not_count_leave_the_spectrum_of_the_others() -> None:
    kept = LABELS < 2
    fewer = measured("spectrum", "class_spectrum", min_samples=3)
    expected = layer_metrics(ROWS[kept], LABELS[kept], 2, families=["spectrum", "class_spectrum"])
    for name, value in expected.items():
        assert fewer[name] == pytest.approx(float(value), rel=1e-10), name


def test_centred_spectra_do_not_move_with_the_rows() -> None:
    still, moved = measured("spectrum", "class_spectrum"), measured("spectrum", "class_spectrum", rows=ROWS + 1e6)
    for name in ("erank", "participation", "stable_rank", "stable_rank_within", "erank_means", "erank_class"):
        assert moved[name] == pytest.approx(still[name], rel=1e-9), name
    for name in ("erank_uncentred", "negativity", "negative_energy"):
        assert moved[name] != pytest.approx(still[name], rel=1e-2), name


def test_rows_without_spread_have_no_spectrum() -> None:
    reasons = undefined_reasons(torch.ones(6, 4).double(), torch.arange(6) % 3, 3, families=["spectrum"])
    assert reasons["erank"] == "all rows are equal" and "erank_uncentred" not in reasons
    reasons = undefined_reasons(ROWS[:3].repeat(2, 1), torch.arange(6) % 3, 3, families=["spectrum"])
    assert reasons == {"stable_rank_within": "all rows are at their class means"}
    reasons = undefined_reasons(torch.zeros(6, 4), torch.arange(6) % 3, 3, families=["spectrum"])
    assert reasons["negativity"] == reasons["erank_uncentred"] == "all rows are zero"
