"""Learning rate: gradient flow is recognised, and where it ends."""

import math

import pytest
from readable import drawn_for
from study_results import gap_rows, one, optimum

from pipeline.studies.e2_lr import claims, draw, steps_to_gap


def test_the_time_to_a_gap_is_exact_for_a_power_law(made):
    result = made([optimum()], rows=gap_rows(lambda step: 50.0 / max(step, 1)))
    assert steps_to_gap(result, 1.0) == pytest.approx(50)
    assert steps_to_gap(result, 1e-9) is None


@pytest.mark.parametrize("flow", [True, False])
def test_gradient_flow_is_recognised_and_its_absence_too(made, flow):
    results = [
        made(
            [optimum()],
            lr=lr,
            rows=gap_rows(lambda step, lr=lr: 50.0 / max(step * (lr if flow else 1), 1e-9)),
        )
        for lr in (0.1, 0.5)
    ]
    assert one(claims(results), "lr x steps").holds is flow


def test_a_rate_that_is_too_large_is_one_at_which_no_seed_arrives(made):
    rows = gap_rows(lambda step: 50.0 / max(step, 1))
    usual = made([optimum()], rows=rows)
    assert one(claims([usual, made([math.nan, 0.5], lr=8.0)]), "too large").holds
    assert not one(claims([usual, made([math.nan, optimum()], lr=8.0)]), "too large").holds


def test_a_rate_at_which_seeds_diverged_says_so_in_the_legend(made):
    rows = gap_rows(lambda step: 50.0 / max(step, 1), seeds=2)
    results = [made([optimum()] * 2, rows=rows), made([math.nan, 0.5], lr=8.0, rows=rows)]
    (figure,) = drawn_for("column", lambda: draw(results)).values()
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == [r"$\eta = 0.5$", r"$\eta = 8$ (1 of 2 seeds diverged)"]
