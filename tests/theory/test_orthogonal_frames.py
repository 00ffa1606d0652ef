"""Cross-entropy with features that cannot be negative, or ReLU: orthogonal frames, dead and collapsed classes."""

import doctest
import math

import pytest
import scipy.optimize
from theory_goldens import all_printed, printed

from pipeline.theory import (
    Problem,
    collapse_threshold,
    diagnose,
    imbalanced_cross_entropy,
    named,
    references,
    relu_low_rank_loss,
)
from pipeline.theory.providers import orthogonal, relu_low_rank

ROWS = [
    (
        (40, 20, 10, 2),
        (5e-3, 1e-3),
        "0.03456",
        "0.1641408236",
        "4.890971217 4.535016407 4.175023710 3.311601977",
        "1.497547978 1.963719708 2.556669438 4.534597761",
        "10.217125938 7.466789274 5.639095971 3.439429456",
    ),
    (
        (40, 20, 10, 2),
        (3e-2, 1.4e-2),
        "2.90304",
        "0.8501513827",
        "2.472146144 2.014771430 1.487026946 0.0",
        "0.495531637 0.571134016 0.596137003 0.0",
        "7.613489314 5.000596162 3.301521846 1.446873393",
    ),
    (
        (30, 30, 10, 10, 10),
        (1e-2, 2e-3),
        "0.2025",
        "0.3931365142",
        "4.040558021 4.040558021 3.438378145 3.438378145 3.438378145",
        "1.475403182 1.475403182 2.174621279 2.174621279 2.174621279",
        "8.176942612 8.176942612 4.799560212 4.799560212 4.799560212",
    ),
]


@pytest.mark.parametrize(("sizes", "decays", "threshold", "value", "margins", "features", "weights"), ROWS)
def test_rows_of_the_table(sizes, decays, threshold, value, margins, features, weights):
    found = imbalanced_cross_entropy(sizes, *decays)
    assert found.loss == printed(value) and found.threshold == printed(threshold)
    assert list(found.margins) == all_printed(margins)
    assert list(found.feature_norms_squared) == all_printed(features)
    assert list(found.weight_norms_squared) == all_printed(weights)
    assert found.collapsed == tuple(size <= found.threshold for size in sizes) and not any(found.dead)


def test_cosines_of_the_weights():
    cosines = imbalanced_cross_entropy((40, 20, 10, 2), 5e-3, 1e-3).cosines
    pairs = [cosines[i][j] for i in range(4) for j in range(i + 1, 4)]
    texts = "-0.501645053 -0.456849260 -0.399438984 -0.322478835 -0.195888529 -0.017905501"
    assert pairs == all_printed(texts) and [cosines[k][k] for k in range(4)] == pytest.approx([1.0] * 4)


def test_larger_classes_have_larger_margins_smaller_features_and_larger_weights():
    found = imbalanced_cross_entropy((64, 32, 16, 8, 4), 1e-3, 1e-3)
    assert list(found.margins) == sorted(found.margins, reverse=True)
    assert list(found.feature_norms_squared) == sorted(found.feature_norms_squared)
    assert list(found.weight_norms_squared) == sorted(found.weight_norms_squared, reverse=True)


def test_dead_classes_and_minority_collapse_are_told_apart():
    sizes, decays = (40, 20, 10, 2), (5e-3, 1e-3)
    problem = Problem("cross_entropy", "relu", sizes, 1, *decays, constraint="nonnegative")
    for dead, value in (((3,), 0.1906966064), ((2, 3), 0.3514079670)):
        found = imbalanced_cross_entropy(sizes, *decays, dead=dead)
        assert found.loss == pytest.approx(value, rel=1e-8)
        assert [k for k in range(4) if found.dead[k]] == list(dead) and not any(found.collapsed)
    assert diagnose(problem, 0.1906966064).name == "dead classes: the one of 2 samples"
    assert diagnose(problem, 0.3514079670).name == "dead classes: the one of 10 samples, the one of 2 samples"
    small = Problem("cross_entropy", "relu", sizes, 1, 3e-2, 1.4e-2, constraint="nonnegative")
    assert diagnose(small, 0.8501513827).name == "global optimum with minority collapse of 1 class"
    found = imbalanced_cross_entropy(sizes, 3e-2, 1.4e-2, dead=(0,))
    assert found.collapsed == (False, False, False, True) and found.dead == (True, False, False, False)


@pytest.mark.parametrize("size", [1, 3, 20])
def test_a_class_is_at_zero_up_to_the_threshold(size):
    sizes = (40, 20, size)
    decay = math.sqrt(size / collapse_threshold(sizes, 1.0, 1.0))
    for factor, collapsed in ((1 + 1e-9, True), (1 - 1e-9, False)):
        found = imbalanced_cross_entropy(sizes, decay * factor, decay * factor)
        assert found.collapsed[2] == collapsed and (found.margins[2] == 0) == collapsed


def test_fewer_features_than_classes_and_zero_decays_have_no_closed_form():
    with pytest.raises(ValueError, match=r"^dim is 3, must be at least the 4 classes for the non-negative closed form"):
        imbalanced_cross_entropy((4, 3, 2, 1), 1e-3, 1e-3, dim=3)
    assert imbalanced_cross_entropy((4, 3, 2, 1), 1e-3, 1e-3, dim=4).loss > 0
    for decays in ((0.0, 1e-3), (1e-3, 0.0)):
        with pytest.raises(ValueError, match="must be a positive finite number"):
            imbalanced_cross_entropy((4, 3), *decays)
    with pytest.raises(ValueError, match=r"^dead is 2"):
        imbalanced_cross_entropy((4, 3), 1e-3, 1e-3, dead=(2,))


# ReLU layers

TABLE = [
    (10, 3, 2**-9, "0.1470607657", "0.1582825853", "0.1678246492"),
    (10, 4, 2**-9, "0.1402012118", "0.1518383802", "0.1446366431"),
    (10, 5, 2**-10, "0.0719698242", "0.0782987335", "0.0692965426"),
    (16, 4, 2**-10, "0.1210344313", "0.1271265970", "0.1175727750"),
]


@pytest.mark.parametrize(("classes", "depth", "decay", "bound", "frame", "low_rank"), TABLE)
def test_values_under_relu_layers(classes, depth, decay, bound, frame, low_rank):
    problem = Problem("cross_entropy", "relu", (5,) * classes, depth, decay, decay)
    known = {state.name: state for state in references(problem)}
    assert known["linear bound of collapsed solutions"].value == printed(bound)
    assert known["orthogonal frame"].value == printed(frame) and known["low rank"].value == printed(low_rank)
    assert [known[name].kind for name in ("linear bound of collapsed solutions", "orthogonal frame", "low rank")] == [
        "bound",
        "stationary",
        "attained",
    ]
    assert relu_low_rank_loss(problem) == known["low rank"].value


@pytest.mark.parametrize(("classes", "depth"), [(12, 4), (14, 4), (8, 5), (10, 5)])
def test_when_the_low_rank_solution_beats_the_linear_bound(classes, depth):
    problem = Problem("cross_entropy", "relu", (5,) * classes, depth, 1e-4, 1e-4)
    known = {state.name: state.value for state in references(problem)}
    cheaper = 2 * classes**3 * ((classes + 2) / 2) ** (depth - 2) < (classes - 1) ** (depth + 1)
    assert cheaper == ((classes, depth) in ((14, 4), (10, 5)))
    if cheaper:
        assert known["low rank"] < known["linear bound of collapsed solutions"]


def test_unequal_classes_under_relu_cost_what_each_costs_alone():
    sizes, depth, decay = (9, 4, 1), 3, 1e-3
    problem = Problem("cross_entropy", "relu", sizes, depth, decay, decay)

    def cost(margin: float, size: int) -> float:
        penalty = 2 * decay * (size * 2 / 3 * margin**2) ** 0.25
        return size / 14 * math.log1p(2 * math.exp(-margin)) + penalty

    options = {"bounds": (1, 60), "method": "bounded", "options": {"xatol": 1e-10}}
    expected = sum(scipy.optimize.minimize_scalar(cost, args=(size,), **options).fun for size in sizes)
    assert named(references(problem), "orthogonal_frame").value == pytest.approx(expected, rel=1e-12)


def test_odd_numbers_of_classes_have_no_low_rank_solution():
    problem = Problem("cross_entropy", "relu", (5,) * 7, 3, 1e-3, 1e-3)
    with pytest.raises(ValueError, match=r"^num_classes is 7, must be even"):
        relu_low_rank_loss(problem)
    assert "low rank" not in [state.name for state in references(problem)]
    with pytest.raises(ValueError, match="needs cross-entropy, ReLU"):
        relu_low_rank_loss(Problem("cross_entropy", "linear", (5,) * 8, 3, 1e-3, 1e-3))


def test_docstring_examples_hold():
    for module in (orthogonal, relu_low_rank):
        assert doctest.testmod(module).attempted > 0 and doctest.testmod(module).failed == 0
