"""Neural feature ansatz: correlations at both ends, and the share of a layer's linear part."""

import pytest
from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies.engine.study import QUICK
from pipeline.studies.nfa import STUDY, claims, draw, shares_of_linear


def _run(folder, gain, nfa=(0.9, 0.95), svt=(0.5, 0.15), last=0.1):
    curves = {
        (f"network.hidden{number}", "post"): {"nfa": list(nfa), "dnc1": [3.0, dnc1], "dnc1_svt": [2.0, part]}
        for number, dnc1, part in zip((1, 2, 3), (2.0, 0.4, last), (*svt, last), strict=True)
    }
    return result_of(folder, STUDY, point_of(STUDY, QUICK, f"gain_{gain}"), curves)


def test_shares_are_of_the_drop_from_layer_to_layer(tmp_path):
    result = _run(tmp_path, "1")
    assert shares_of_linear(result) == pytest.approx([1.5 / 1.6, 0.25 / 0.3])


def test_claims_hold_and_fail(tmp_path):
    both = [_run(tmp_path, "1"), _run(tmp_path, "0.3", last=0.05)]
    judged = claims(both)
    assert len(judged) == 7 and one(judged, "small start").holds
    assert all(one(judged, f"gain_1: {part}").holds for part in ("W^T W", "and does so", "S V^T"))
    (figure,) = drawn_for("column", lambda: draw(both)).values()
    drawn = [line for line in figure.axes[2].lines if line.get_linestyle() != "None"]
    assert len(figure.axes) == 4 and drawn == []  # rows are places, which no line joins
    other = claims([_run(tmp_path / "other", "1", nfa=(0.1, 0.5), svt=(1.9, 0.39))])
    assert not any(claim.holds for claim in other)
