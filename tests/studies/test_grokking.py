"""Grokking: times of fitting, generalising and collapsing, and how they scale with the decay."""

import math

import pytest
from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.engine.study import QUICK
from pipeline.studies.grokking import BATCHES, STUDY, claims, collapse, draw, fit, generalisation

EPOCHS = range(40)


def _run(folder, name, fitted=3, generalised=12, collapsed=10, factor=0.5):
    """Accuracy jumps at an epoch; NC1 halves from epoch to epoch and is 1 at another one."""
    dnc1 = [factor ** (epoch - collapsed) for epoch in EPOCHS]
    whole = {
        f"{split}_accuracy": [0.1 if epoch < at else 0.95 - 0.1 * 0.9**epoch for epoch in EPOCHS]
        for split, at in (("test", generalised), ("train", 10**6))
    }
    whole["train_accuracy"] = [0.1 if epoch < fitted else 0.99 for epoch in EPOCHS]
    curves = {CLASSIFIER: {"dnc1": dnc1, "test_dnc1": [2 * value for value in dnc1]}, None: whole}
    return result_of(folder, STUDY, point_of(STUDY, QUICK, name), curves)


def _controls(folder):
    return [
        _run(folder, "no_decay", generalised=1000, collapsed=1000, factor=0.99),
        _run(folder, "usual_start", fitted=3, generalised=2),
    ]


def test_times_are_steps_and_what_never_happens_has_none(tmp_path):
    result = _run(tmp_path, "decay_0.2")
    assert collapse(result) == pytest.approx(10 * BATCHES) and collapse(result, "test_") == pytest.approx(11 * BATCHES)
    assert 2 * BATCHES < fit(result) <= 3 * BATCHES and 11 * BATCHES < generalisation(result) <= 12 * BATCHES
    never = _controls(tmp_path)[0]
    assert math.isnan(collapse(never)) and math.isnan(generalisation(never))


def test_claims_hold_where_times_scale_with_the_decay(tmp_path):
    results = [
        _run(tmp_path, "decay_0.2"),
        _run(tmp_path, "decay_0.1", generalised=24, collapsed=20),
        *_controls(tmp_path),
    ]
    judged = claims(results)
    assert len(judged) == 9 and all(claim.holds for claim in judged)
    (figure,) = drawn_for("column", lambda: draw(results)).values()
    assert len(figure.axes[2].lines) == 5 and figure.axes[0].get_xscale() == "log"


def test_what_a_run_does_not_reach_in_its_time_decides_nothing(tmp_path):
    never = {"fitted": 1000, "generalised": 1000, "collapsed": 1000, "factor": 0.99}
    results = [
        *(_run(tmp_path, f"decay_{decay}", **never) for decay in (0.2, 0.1)),
        _run(tmp_path, "usual_start", 1000),
    ]
    results.append(_run(tmp_path, "no_decay", **never))
    judged = claims(results)
    decided = [claim for claim in judged if claim.holds is not None]
    assert len(judged) == 9 and len(decided) == 1 and "less collapsed than training" in decided[0].claim
    (figure,) = drawn_for("column", lambda: draw(results)).values()
    assert len(figure.axes[2].lines) == 1  # 1/(rate x decay) alone
    assert not any("accuracy 0.8" in entry.get_text() for legend in figure.legends for entry in legend.get_texts())


def test_claims_fail_where_they_do_not(tmp_path):
    judged = claims(
        [
            _run(tmp_path, "decay_0.2", fitted=3, generalised=30, collapsed=20),
            _run(tmp_path, "decay_0.1", fitted=9, generalised=10, collapsed=10),
            _run(tmp_path, "no_decay"),
            _run(tmp_path, "usual_start", fitted=2, generalised=5),
        ]
    )
    failing = ("same time at decays", "training NC1 of 1 after", "test accuracy 0.8 after", "the weaker", "at least 2")
    assert not any(one(judged, part).holds for part in (*failing, "without decay", "usual start"))
