"""Imbalanced cross-entropy: margins, norms and the threshold are judged by the closed form."""

from family_results import result_at
from readable import drawn_for
from study_results import one, verdicts

from pipeline.studies.imbalanced_ce import claims, draw
from pipeline.theory import Problem


def _run(folder, point, *, few=2, decays=(5e-3, 1e-3), name="global optimum", width=16):
    problem = Problem("cross_entropy", "linear", (40, 20, 10, few), 1, *decays, constraint="nonnegative")
    return result_at(folder, point, problem, name, [width])


def test_the_optimum_has_the_margins_and_norms_of_the_closed_form(tmp_path):
    wide = _run(tmp_path, "num_features_16")
    assert set(verdicts(claims([wide])).values()) == {True}
    dead = _run(tmp_path, "num_features_32", name="dead classes: the one of 2 samples")
    assert set(verdicts(claims([dead])).values()) == {False}


def test_narrow_runs_are_counted_by_their_dead_classes(tmp_path):
    found = claims([_run(tmp_path, "num_features_4", name="dead classes: the one of 2 samples", width=4)])
    assert one(found, "some seeds").holds and "2 x dead classes" in one(found, "some seeds").measured
    assert not claims([_run(tmp_path, "num_features_8", width=8)])[0].holds


def test_a_class_at_zero_is_right_below_the_threshold_only(tmp_path):
    strong = (3e-2, 1.4e-2)
    gone = _run(tmp_path, "smallest_2", decays=strong, name="global optimum with minority collapse of 1 class")
    fitted = _run(tmp_path, "smallest_4", few=4, decays=strong)
    dead = _run(tmp_path, "smallest_6", few=6, decays=strong, name="dead classes: the one of 6 samples")
    assert [claim.holds for claim in claims([gone, fitted, dead])] == [True, True, False]
    wide = _run(tmp_path, "num_features_16")
    (figure,) = drawn_for("column", lambda: draw([wide, gone, fitted, dead])).values()
    phases = next(axes for axes in figure.axes if "lambda" in axes.get_ylabel())
    assert [line.get_marker() for line in phases.lines] == ["s", "o", "v"]  # at zero, fitted, dead
