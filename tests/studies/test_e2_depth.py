"""Depth: the optimum is found, or the claim says where it is not."""

import math
from dataclasses import replace

from readable import drawn_for
from study_results import optimum, verdicts

from pipeline.storage.record import write_summary
from pipeline.studies import e1, e2_depth


def test_depth_claims_fail_where_descent_has_not_arrived(made):
    judged = verdicts(e2_depth.claims([made([optimum(2)] * 2, depth=2), made([optimum(9) * 1.02] * 2, depth=9)]))
    assert [claim for claim, holds in judged.items() if not holds] == ["L = 9: gap of the loss to the closed form"]


def test_a_run_without_any_surviving_seed_fails_every_claim_made_of_it(made):
    result = made([math.nan] * 2)
    write_summary(result.folder, {"status": "failed", "error": "RunError: diverged"})
    for judge in (e1.claims, e2_depth.claims):
        fresh = replace(result)
        assert not any(claim.holds for claim in judge([fresh]))


def test_the_figure_is_readable(made):
    results = [made([optimum(depth) * 1.01, optimum(depth) * 1.02], depth=depth) for depth in (2, 9)]
    (figure,) = drawn_for("column", lambda: e2_depth.draw(results)).values()
    assert len(figure.axes) == 5
