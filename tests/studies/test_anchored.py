"""Anchored: the scatter that is left is judged by the exact response, and the path by its order."""

import pytest
from family_results import descent_rows, result_at
from readable import drawn_for
from study_results import one

from pipeline.storage.record import read_summary, write_summary
from pipeline.studies.anchored import beta_of, claims, draw, expected, shrinkage
from pipeline.theory import Problem


def _run(folder, point, quotient, strength=0.025, path=()):
    problem = Problem("mse", "linear", (10,) * 4, 1, 1.25e-2, 5e-4)
    rows = descent_rows("dnc1", [2.0, 1.9, 2.0 * quotient], "1", "pre")
    result = result_at(folder, point, problem, "global optimum", [4], rows=rows)
    summary = read_summary(result.folder)
    summary["problem"]["anchor_strength"] = strength
    summary |= {"references": [], "sits_at": None}
    summary["anchored_path"] = [{"step": step, "dnc1": [value] * 2} for step, value in enumerate(path)]
    write_summary(result.folder, summary)
    return result


def test_close_to_a_minimiser_the_factor_is_that_of_the_exact_response(tmp_path):
    right = _run(tmp_path, "near_1", 0.6125741133**2)  # beta/(beta+g) at lambda_W .05, lambda_H .02, beta 1
    assert beta_of(right) == pytest.approx(1) and shrinkage(right) == pytest.approx([0.6125741133**2] * 2)
    assert expected(right) == pytest.approx(0.6125741133**2, rel=1e-9)
    assert one(claims([right]), "near_1").holds
    assert not one(claims([_run(tmp_path / "wrong", "near_1", 0.45)]), "near_1").holds


def test_less_scatter_weaker_ties_and_a_path_that_falls(tmp_path):
    weak, strong = _run(tmp_path, "random_1", 0.1), _run(tmp_path, "random_100", 0.9, 2.5)
    path = _run(tmp_path, "path", 0.5, path=(2.0, 1.5, 1.2))
    judged = claims([weak, strong, path])
    assert len(judged) == 4 and all(claim.holds for claim in judged)
    assert "theorem" in one(judged, "random_100:").owner and "ours" in one(judged, "random_1:").owner
    (figure,) = drawn_for("column", lambda: draw([weak, strong, path])).values()
    assert len(figure.axes[1].lines) == 2
    rising, back = _run(tmp_path / "bad", "random_1", 1.2), _run(tmp_path / "bad", "path", 0.5, path=(2.0, 1.5, 1.6))
    judged = claims([rising, strong, back])
    for part in ("random_1:", "weaker the tie", "path"):
        assert not one(judged, part).holds
