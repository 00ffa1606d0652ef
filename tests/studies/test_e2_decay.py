"""Weight decay: the phase transition, claim by claim."""

import pytest
from readable import drawn_for
from study_results import optimum, verdicts, with_optimal_tensors

from pipeline.studies.e2_decay import claims, draw, fold_multiple
from pipeline.studies.engine.results import Result
from pipeline.theory import DufmProblem, critical_decay, diagnose


def decay_results(made, found: dict[float, list[float]]) -> list[Result]:
    """Multiple of the critical decay -> multiple of the closed form's loss per seed, optimal tensors."""
    critical = critical_decay(DufmProblem(2, 50, 3, 1.0, 1.0))
    return [
        with_optimal_tensors(
            made([factor * optimum(3, multiple * critical) for factor in factors], decay=multiple * critical)
        )
        for multiple, factors in found.items()
    ]


def test_a_sharp_phase_transition_bears_out_the_decay_claims(made):
    judged = claims(decay_results(made, {0.5: [1.0, 1.001], 0.9: [1.0, 1.0], 1.2: [1.0, 1.02], 2.0: [1.0, 1.0]}))
    assert all(verdicts(judged).values())


@pytest.mark.parametrize(
    ("found", "failing"),
    [
        ({0.5: [1.1, 1.1], 2.0: [1.0, 1.0]}, ["below the critical decay: the best run's loss", "scale 1"]),
        ({0.5: [1.0, 1.1], 2.0: [1.0, 1.0]}, ["scale 1"]),
        ({0.5: [1.0, 1.0], 2.0: [1.0, 1.02]}, ["beyond the fold"]),
        ({0.5: [1.0, 1.0], 1.2: [1.02, 1.02], 2.0: [1.0, 1.0]}, ["above the critical decay"]),
        ({0.5: [1.0, 0.999], 2.0: [1.0, 1.0]}, ["scale 1", "no run is below"]),
    ],
)
def test_decay_claims_fail_one_by_one(made, found, failing):
    judged = claims(decay_results(made, found))
    failed = [claim.claim for claim in judged if not claim.holds]
    assert len(failed) == len(failing) and all(part in claim for part, claim in zip(failing, failed, strict=True))


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_the_fold_is_where_theory_loses_the_metastable_solution(made, depth):
    fold = fold_multiple(made([0.5], depth=depth))
    critical = critical_decay(DufmProblem(2, 50, depth, 1.0, 1.0))
    q = (depth - 1) / (2 * depth)
    loss = (1 - q) * (1 + depth * q) / 2
    before, beyond = (DufmProblem(2, 50, depth, *[fold * share * critical] * 2) for share in (1 - 1e-9, 1 + 1e-9))
    assert diagnose(before, loss).name == "metastable collapsed solution"
    assert diagnose(beyond, loss).name != "metastable collapsed solution"


def test_the_figure_is_readable(made):
    results = decay_results(made, {0.1: [1.0, 1.0], 1.2: [1.0, 1.02]})
    (figure,) = drawn_for("column", lambda: draw(results)).values()
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "log"]
