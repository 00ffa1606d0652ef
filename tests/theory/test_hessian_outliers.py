"""Spectra at the collapsed solution: the specification's numbers, and the Hessian that autograd finds."""

import doctest
import math

import pytest
import torch
from theory_goldens import printed

from pipeline.theory import (
    DufmProblem,
    Problem,
    collapsed_optimum,
    construct_optimum,
    full_hessian,
    hessian,
    hessian_outliers,
)


def test_values_of_five_layers():
    found = hessian_outliers(Problem("mse", "linear", (40,) * 3, 5, 1e-2, 1e-2))
    assert collapsed_optimum(DufmProblem(3, 40, 5, 1e-2, 1e-2)).loss == printed("0.1648378727")
    assert found.output == printed("0.9422774667") and found.layers == (printed("0.163242570"),) * 5
    assert found.gram == (printed("1.813021414"),) * 5 and math.sqrt(found.gram[2]) == printed("1.346484836")
    assert found.mean_norm == printed("0.212897946") and found.gauss_newton == printed("0.979455419")
    values = full_hessian(DufmProblem(3, 40, 5, 1e-2, 1e-2), 60)
    assert values[:2] == ((printed("1.039455419"), 3), (printed("0.939455419"), 6)) and values[-1] == (0.0, 870)
    assert sum(count for _, count in values) == 4 * 60**2 + 2 * 3 * 60


def test_values_of_unequal_decays():
    found = hessian_outliers(DufmProblem(3, 4, 3, (1e-2, 2e-2, 5e-3), 3e-2))
    assert collapsed_optimum(DufmProblem(3, 4, 3, (1e-2, 2e-2, 5e-3), 3e-2)).loss == printed("0.1100675925")
    assert found.output == printed("0.9424852433") and found.features == printed("0.491605267")
    assert found.layers == (printed("0.163868422"), printed("0.327736845"), printed("0.081934211"))
    assert (found.multiplicity, found.feature_multiplicity) == (9, 36)


def test_values_of_the_full_hessian():
    values = dict(full_hessian(DufmProblem(3, 4, 2, 1e-2, 1e-2), 4))
    counts = {round(value, 9): count for value, count in values.items()}
    assert counts == {0.619625082: 3, 0.579625082: 6, 0.02: 18, 0.01: 1, 0.0: 12}


@pytest.mark.parametrize(("classes", "samples", "depth", "dim", "decay"), [(3, 4, 2, 4, 1e-2), (2, 1, 3, 3, 6e-2)])
def test_autograd_finds_the_full_hessian_of_merged_classes(classes, samples, depth, dim, decay):
    problem = DufmProblem(classes, samples, depth, decay, decay)
    point = construct_optimum(problem, (dim,) * depth, torch.Generator().manual_seed(0))
    parts = [point.features[::samples] * math.sqrt(samples), *point.weights]
    eye = torch.eye(classes, dtype=torch.float64)

    def objective(flat: torch.Tensor) -> torch.Tensor:
        features, *weights = [
            piece.view(part.shape)
            for piece, part in zip(flat.split([part.numel() for part in parts]), parts, strict=True)
        ]
        outputs = features / math.sqrt(samples)
        for weight in weights:
            outputs = outputs @ weight.T
        return (outputs - eye).square().sum() / (2 * classes) + decay / 2 * flat.square().sum()

    table = torch.autograd.functional.hessian(objective, torch.cat([part.flatten() for part in parts]))
    found = torch.linalg.eigvalsh(table).tolist()
    expected = sorted(value for value, count in full_hessian(problem, dim) for _ in range(count))
    assert found == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_autograd_finds_the_outliers_of_each_layer(layer):
    problem = DufmProblem(3, 2, 3, (1e-2, 2e-2, 5e-3), 3e-2)
    point = construct_optimum(problem, (4, 4, 4), torch.Generator().manual_seed(0))
    targets = torch.eye(3, dtype=torch.float64)[point.labels]

    def fit(factor: torch.Tensor, place: int) -> torch.Tensor:
        factors = [point.features, *point.weights]
        factors[place] = factor
        outputs = factors[0]
        for weight in factors[1:]:
            outputs = outputs @ weight.T
        return (outputs - targets).square().sum() / 12

    def spectrum(place: int) -> list[float]:
        factor = [point.features, *point.weights][place]
        table = torch.autograd.functional.hessian(lambda moved: fit(moved, place), factor)
        return torch.linalg.eigvalsh(table.reshape(factor.numel(), factor.numel())).tolist()

    found, values = hessian_outliers(problem), spectrum(layer + 1)
    assert values[-9:] == pytest.approx([found.layers[layer]] * 9, rel=1e-10)
    assert values[:-9] == pytest.approx([0] * len(values[:-9]), abs=1e-12)
    gram = torch.linalg.eigvalsh(point.weights[layer].T @ point.weights[layer])[-3:].tolist()
    assert gram == pytest.approx([found.gram[layer]] * 3, rel=1e-12)
    if layer == 0:
        assert spectrum(0)[-18:] == pytest.approx([found.features] * 18, rel=1e-10)
        assert found.penalised[0] == pytest.approx(found.layers[0] + 1e-2, rel=1e-12)


def test_where_no_collapsed_solution_is_there_are_no_spectra():
    for wrong in (DufmProblem(3, 4, 2, 1.0, 1.0), DufmProblem(2, 1, 1, 0.5, 0.5)):
        with pytest.raises(ValueError, match="no collapsed solution"):
            hessian_outliers(wrong)
    with pytest.raises(ValueError, match=r"must be equal$"):
        full_hessian(DufmProblem(3, 4, 2, (1e-2, 2e-2), 1e-2), 4)
    with pytest.raises(ValueError, match=r"^dim is 2"):
        full_hessian(DufmProblem(3, 4, 2, 1e-2, 1e-2), 2)
    with pytest.raises(ValueError, match="must be equal numbers"):
        hessian_outliers(Problem("mse", "linear", (4, 3), 2, 1e-2, 1e-2))


def test_docstring_examples_hold():
    assert doctest.testmod(hessian).attempted > 1 and doctest.testmod(hessian).failed == 0
