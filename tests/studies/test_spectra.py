"""Spectra: the outliers of a layer are judged by the closed form, and what a size cannot decide is said."""

from family_results import result_at
from readable import drawn_for
from study_results import one

from pipeline.studies.spectra import claims, draw, eigenvalues
from pipeline.theory import Problem


def _run(folder, point, name, *, activation="linear", samples=4):
    problem = Problem("mse", activation, (samples,) * 3, 5, 1e-2, 0.4 / samples)
    return result_at(folder, point, problem, name, [6] * 5)


def test_linear_collapse_has_nine_equal_outliers_at_the_closed_form(tmp_path):
    result = _run(tmp_path, "steps_3000", "global optimum")
    judged = claims([result])
    assert len(judged) == 7 and all(claim.holds for claim in judged)
    values = eigenvalues(result, 3)
    assert abs(values[:, :9] - 0.163242570).max() < 1e-8 and abs(values[:, 9:]).max() < 1e-12
    merged = claims([_run(tmp_path, "steps_1000", "global optimum", samples=1)])
    assert one(merged, "next eigenvalue").holds is None


def test_a_random_head_has_none_of_it(tmp_path):
    judged = claims([_run(tmp_path, "steps_1", None)])
    for part in ("largest outlier", "K^2-th", "1 - f", "share of the gradient", "W^T W"):
        assert not one(judged, part).holds


def test_relu_outliers_are_equal_at_collapse_and_not_in_the_small_code(tmp_path):
    code = _run(tmp_path, "relu", "small code", activation="relu")
    judged = claims([code])
    assert one(judged, "unequal").holds and "2 x small code" in one(judged, "unequal").measured
    assert one(judged, "below collapse").holds
    (figure,) = drawn_for("column", lambda: draw([code])).values()
    assert figure.legends[0].get_texts()[0].get_text() == "ReLU: small code (2)"
