"""Regression: collapse, white residuals and dropped components are judged by the closed form."""

import pytest
import torch
from family_results import result_at
from readable import drawn_for
from study_results import one, verdicts

from pipeline.runs.matrices import teacher
from pipeline.storage.tensors import write_tensors
from pipeline.studies.regression import claims, collapse, draw, dropped
from pipeline.theory import Problem


def _run(folder, point, decays, name="global optimum"):
    targets = teacher(60, 3, 0)
    problem = Problem("mse", "linear", None, 1, *decays, bias=True, targets=targets)
    return result_at(folder, point, problem, name, [6])


def test_the_closed_form_is_collapsed_and_leaves_white_residuals(tmp_path):
    middle, beyond = _run(tmp_path, "middle", (2e-2, 1e-3)), _run(tmp_path, "beyond", (1e-1, 2e-2))
    assert dropped(middle) == 0 and dropped(beyond) == 1
    judged = claims([middle, beyond])
    assert len(judged) == 9 and set(verdicts(judged).values()) == {True}
    (figure,) = drawn_for("column", lambda: draw([middle, beyond])).values()
    assert len(figure.axes) == 4


def test_another_stationary_point_and_another_scale_fail(tmp_path):
    partial = _run(tmp_path, "middle", (2e-2, 1e-3), "components at zero: the one with singular value 1.21763")
    judged = verdicts(claims([partial]))
    assert not judged["middle: gap to the closed form"] and not judged["middle: NRC3"]
    assert not judged["middle: covariance of the residuals is c I, deviation"]


def test_features_off_the_span_are_not_collapsed(tmp_path):
    result = _run(tmp_path, "middle", (2e-2, 1e-3))
    tensors = dict(result.tensors)
    noise = torch.randn(tensors["features/1"].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    write_tensors(result.folder, tensors | {"features/1": tensors["features/1"] + noise}, max_mb=10)
    del result.__dict__["tensors"]
    assert min(collapse(result)["nrc1"]) > 0.01
    assert not one(claims([result]), "NRC1").holds and not one(claims([result]), "balance").holds
    assert collapse(result)["nrc3"] == pytest.approx([0, 0], abs=1e-12)
