"""Class encoding: runs at the closed form hold, those elsewhere do not, and the way of the cosines is judged."""

import pytest
from family_results import result_at
from readable import drawn_for
from study_results import one

from pipeline.storage.record import read_summary, write_summary
from pipeline.studies.class_encoding import claims, cosines, draw, expected, threshold
from pipeline.theory import Problem, lowest, references


def _run(folder, name, mu, at=None, samples=10, depth=1):
    """A run with this penalty, at the optimum of its problem or at that of another penalty."""
    decay = 5e-2 if depth == 1 else 1e-2
    problems = [
        Problem("mse", "linear", (samples,) * 4, depth, decay, 5e-3, bias=True, bias_decay=it)
        for it in (mu, mu if at is None else at)
    ]
    state = lowest(references(problems[1]))
    result = result_at(folder, f"{name}-mu_{mu:g}", problems[1], state.name, [6] * depth, seeds=2)
    known = [{"name": it.name, "value": it.value, "kind": it.kind} for it in references(problems[0])]
    summary = read_summary(result.folder)
    summary["problem"] |= {"bias": "last", "bias_decay": mu}
    write_summary(result.folder, summary | {"references": known})
    return result


def test_the_closed_form_holds_from_the_simplex_to_the_frame(tmp_path):
    runs = [_run(tmp_path, "k_4", mu) for mu in (0.0, 0.2, 0.5, 1000.0)]
    assert threshold(runs[0]) == pytest.approx(0.25) and cosines(runs[1]) == pytest.approx([-1 / 3] * 2)
    judged = claims(runs)
    assert len(judged) == 4 and all(claim.holds for claim in judged)
    figure = drawn_for("column", lambda: draw(runs))["class_encoding"]
    assert len(figure.axes) == 3


def test_a_run_that_ends_as_with_another_penalty_fails(tmp_path):
    judged = claims([_run(tmp_path, "k_4", 0.5, at=0.0)])
    assert not one(judged, "gap").holds and not one(judged, "cosines of class means").holds
    judged = claims([_run(tmp_path / "simplex", "k_4", 0.0, at=0.5)])
    assert not one(judged, "a simplex up to").holds


def test_with_two_layers_the_way_is_another_and_has_a_jump(tmp_path):
    low, high = (_run(tmp_path, "layers_2", mu, depth=2) for mu in (0.15, 0.3))
    assert expected(low) == pytest.approx(-1 / 3) and expected(high) > -0.1
    judged = claims([low, high])
    assert all(claim.holds for claim in judged)
