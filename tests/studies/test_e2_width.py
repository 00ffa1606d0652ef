"""Width: seeds are counted by the value each sits at."""

import math

import pytest
from readable import drawn_for
from study_results import one, optimum

from pipeline.studies.e2_width import claims, draw
from pipeline.theory import DufmProblem, partial_loss


def test_success_over_the_width_is_counted_by_the_value_each_seed_sits_at(made):
    problem = DufmProblem(2, 50, 6, 5e-4, 5e-4)
    stuck = [optimum(6) * 1.001, partial_loss(problem, 1), 0.5, 0.5]
    narrow, wide = made(stuck, depth=6, width=4), made(stuck, depth=6, width=16)
    judged = claims([narrow, wide])
    for part in ("width 4", "width 16"):
        assert one(judged, part).measured == "2 x zero solution, 1 x global optimum, 1 x 1 of 2 classes fitted"
    assert one(judged, "width 4").holds and not one(judged, "width 16").holds
    assert one(judged, "theory names").holds
    fine = made([optimum(6) * 1.001] * 4, depth=6, width=16)
    assert one(claims([fine]), "width 16").holds
    assert not one(claims([made([optimum(6)] * 4, depth=6, width=4)]), "width 4").holds


@pytest.mark.parametrize("loss", [0.1, math.nan])
def test_a_loss_without_a_name_is_reported(made, loss):
    judged = one(claims([made([optimum(6), loss], depth=6, width=8)]), "theory names")
    assert not judged.holds and judged.measured == "1"


def test_every_diagnosis_that_occurs_stands_in_the_legend(made):
    (figure,) = drawn_for("column", lambda: draw([made([0.5, 0.1], depth=6, width=4), made([optimum(6)])])).values()
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"zero solution", "none of them"} <= set(said)
