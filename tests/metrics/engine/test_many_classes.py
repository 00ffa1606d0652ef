"""Decompositions by a triangle are those of LAPACK."""

import pytest
import torch

from pipeline.metrics.engine.many_classes import right_vectors, singular_values


@pytest.mark.parametrize("shape", [(30, 7), (7, 30), (9, 9), (2, 12, 5)])
def test_a_triangle_has_the_singular_values_and_vectors(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, expected, vectors = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(singular_values(matrix), expected, rtol=1e-13, atol=0)
    values, found = right_vectors(matrix)
    torch.testing.assert_close(values, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close((found * vectors).sum(-1).abs(), torch.ones_like(values), rtol=1e-12, atol=0)


def test_small_singular_values_keep_digits_that_a_gram_matrix_would_lose():
    turn = torch.linalg.qr(torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    exact = torch.logspace(0, -9, 6, dtype=torch.float64)
    for matrix in (turn * exact, (turn * exact).T.contiguous()):
        values, _ = right_vectors(matrix)
        torch.testing.assert_close(values, exact, rtol=1e-6, atol=0)  # eps over 1e-9, and not over its square
