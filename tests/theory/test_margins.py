"""Directions of largest margin against a linear programme's and an independent descent's, and what bad rows say."""

import doctest

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from pipeline.theory import margins, max_margin_directions


def test_the_example_in_the_docstring():
    assert doctest.testmod(margins).failed == 0


def test_two_rows_have_the_foot_of_their_line():
    # nearest to 0 on the line from (2, 0) to (0, 1): (2, 4)/5
    found = max_margin_directions(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([0, 0, 1]))
    expected = torch.tensor([[1.0, 2.0], [5**0.5, 0.0]], dtype=torch.float64) / 5**0.5
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_margins_are_those_of_a_quadratic_programme_with_more_rows_than_are_looked_at_first():
    drawn = torch.Generator().manual_seed(3)
    rows = torch.randn(700, 6, generator=drawn, dtype=torch.float64) + 4 * torch.eye(6)[0]
    (found,) = max_margin_directions(rows, torch.zeros(700, dtype=torch.int64))
    margin = float((rows @ found).min())
    bounds = {"type": "ineq", "fun": lambda w: rows.numpy() @ w - 1, "jac": lambda w: rows.numpy()}
    start = 2 * found.numpy() / margin + 0.1
    solved = minimize(lambda w: w @ w, start, jac=lambda w: 2 * w, constraints=bounds, method="SLSQP")
    assert margin == pytest.approx(1 / np.linalg.norm(solved.x), rel=1e-6)
    assert float(found @ torch.from_numpy(solved.x)) == pytest.approx(np.linalg.norm(solved.x), rel=1e-6)


def test_a_class_around_the_origin_has_no_direction():
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.0, -1.0], [0.0, 2.0]])
    found = max_margin_directions(rows, torch.tensor([0, 0, 0, 1]))
    assert found[0].isnan().all() and found[1].tolist() == [0, 1]


def test_labels_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"labels leave out class 1; allowed"):
        max_margin_directions(torch.eye(2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"labels of shape \(3,\) do not go with 2 rows"):
        max_margin_directions(torch.eye(2), torch.tensor([0, 1, 1]))
