"""Linguistic collapse: measures that go with the loss, and what small models leave open."""

import pytest
from measured_results import point_of, result_of
from readable import drawn_for
from study_results import one

from pipeline.studies._measured import CLASSIFIER
from pipeline.studies.engine.study import QUICK
from pipeline.studies.linguistic import STUDY, claims, correlation, draw

LOSSES = {"width_16-depth_1": 3.5, "width_32-depth_1": 3.2, "width_64-depth_1": 3.0}


def _runs(folder, **changed):
    found = []
    for place, (name, loss) in enumerate(LOSSES.items()):
        values = {"cdnv_2": 2.0 - 0.5 * place, "kernel_log_cov": 1.2 - 0.2 * place, "dual_cov": 0.8 - 0.3 * place}
        values |= {"test_nc4": 0.8 - 0.1 * place, "norm_cov": 0.4 - 0.05 * place, "dual_mean": 0.3 + 0.1 * place}
        values |= {metric: own[place] for metric, own in changed.items()}
        curves = {CLASSIFIER: {metric: [9.0, value] for metric, value in values.items()}}
        point = point_of(STUDY, QUICK, name)
        found.append(result_of(folder, STUDY, point, curves | {None: {"test_loss": [6.0, loss]}}))
    return found


def test_measures_that_fall_with_the_loss_hold_and_small_models_do_not_decide(tmp_path):
    runs = _runs(tmp_path)
    judged = claims(runs)
    assert len(judged) == 10
    assert [claim.holds for claim in judged] == [True] * 8 + [None] * 2
    (figure,) = drawn_for("neurips", lambda: draw(runs)).values()
    assert [len([line for line in axes.lines if len(line.get_xdata()) == 1]) for axes in figure.axes] == [3] * 4


def test_what_does_not_go_with_the_loss_fails(tmp_path):
    judged = claims(_runs(tmp_path, kernel_log_cov=[0.7, 1.0, 0.72], test_nc4=[0.5, 0.6, 0.7]))
    assert not one(judged, "GNC2, variation of the log kernel goes").holds
    assert not one(judged, "GNC2, variation of the log kernel: squared").holds
    assert not one(judged, "NC4, agreement with the nearest mean goes").holds
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(1) and correlation([1], [2]) != correlation([1], [2])
