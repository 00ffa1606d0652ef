"""The closed forms against independent oracles: 60-digit arithmetic, minimisers, autograd, the paper's own numbers."""

import dataclasses
import doctest
import importlib
import itertools
import math

import mpmath
import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.theory import (
    Diagnosis,
    DufmProblem,
    Reference,
    collapsed_optimum,
    construct_optimum,
    critical_decay,
    critical_product,
    diagnose,
    diagnose_among,
    lowest,
    partial_loss,
    references,
)

DEPTHS = (1, 2, 3, 6, 12, 25, 50)
PAPER = DufmProblem(num_classes=2, samples_per_class=50, depth=3, weight_decay=5e-4, feature_decay=5e-4)


def uniform(num_classes, samples_per_class, depth, decay):
    return DufmProblem(num_classes, samples_per_class, depth, decay, decay)


def near_threshold(num_classes, samples_per_class, depth, factor):
    critical = critical_decay(uniform(num_classes, samples_per_class, depth, 1.0))
    return uniform(num_classes, samples_per_class, depth, critical * factor)


class Exact:
    """The collapsed family to 60 digits, straight from its objective: minimise loss(q) over q and compare with 1/2."""

    def __init__(self, problem):
        with mpmath.workdps(60):
            classes, depth = mpmath.mpf(problem.num_classes), problem.depth
            decays = [mpmath.mpf(decay) for decay in (problem.feature_decay, *problem.weight_decays)]
            product = mpmath.fprod(decays) * problem.samples_per_class
            c = mpmath.root(product, depth + 1)
            self.exists, self.misfit = self._smaller_misfit(classes * c, depth)
            q = 1 - self.misfit
            energy = c * q ** (mpmath.mpf(2) / (depth + 1))
            fit, penalty = self.misfit**2 / 2, classes * energy / 2
            self.stationary_loss = fit + (depth + 1) * penalty
            self.zero_is_optimal = not (self.exists and self.stationary_loss < mpmath.mpf(1) / 2)
            self.output = q
            self.values = {
                "loss": self.stationary_loss,
                "fit": fit,
                "regularisation": (depth + 1) * penalty,
                "feature_penalty": penalty,
                "output": q,
                "feature_norm_squared": 2 * penalty / decays[0],
            }
            self.singular_values = [mpmath.sqrt(energy / decay) for decay in decays[2:]]
            self.weight_norms_squared = [2 * penalty / decay for decay in decays[1:]]

    @staticmethod
    def _smaller_misfit(target, depth):
        """Bisect log p on the rising side of (1-q) q^((L-1)/(L+1)), p = 1 - q."""
        exponent = mpmath.mpf(depth - 1) / (depth + 1)
        low, high = mpmath.log(target) - 1, mpmath.log(mpmath.mpf(depth + 1) / (2 * depth))
        target = mpmath.log(target)

        def below(x):
            return x + exponent * mpmath.log(1 - mpmath.exp(x)) < target if x < 0 else target > 0

        if below(high) or low > high:
            return False, mpmath.mpf(1)
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if below(middle) else (low, middle)
        return True, mpmath.exp(low)


def assert_matches_exact(problem):
    exact, optimum = Exact(problem), collapsed_optimum(problem)
    assert optimum.zero_is_optimal == exact.zero_is_optimal, problem
    if exact.zero_is_optimal:
        assert (optimum.loss, optimum.fit, optimum.regularisation, optimum.output) == (0.5, 0.5, 0.0, 0.0)
        return
    for name, value in exact.values.items():
        assert getattr(optimum, name) == pytest.approx(float(value), rel=1e-12, abs=0), (name, problem)
    assert optimum.singular_values[0] is None
    assert optimum.singular_values[1:] == pytest.approx([float(s) for s in exact.singular_values], rel=1e-12, abs=0)
    norms = [float(norm) for norm in exact.weight_norms_squared]
    assert optimum.weight_norms_squared == pytest.approx(norms, rel=1e-12, abs=0)


def objective(problem, features, weights, activation=torch.relu):
    """The L-DUFM objective as the paper writes it, rows as samples, samples ordered by class."""
    targets = torch.eye(problem.num_classes, dtype=torch.float64).repeat_interleave(problem.samples_per_class, dim=0)
    hidden = features @ weights[0].T
    for weight in weights[1:]:
        hidden = activation(hidden) @ weight.T
    penalty = problem.feature_decay * features.square().sum()
    for decay, weight in zip(problem.weight_decays, weights, strict=True):
        penalty = penalty + decay * weight.square().sum()
    return (hidden - targets).square().sum() / (2 * len(targets)) + penalty / 2


def unpack(vector, shapes):
    sizes = [math.prod(shape) for shape in shapes]
    return [part.reshape(shape) for part, shape in zip(torch.split(vector, sizes), shapes, strict=True)]


def shapes_of(problem, widths):
    dims = [*widths, problem.num_classes]
    rows = problem.num_classes * problem.samples_per_class
    return [(rows, dims[0]), *((out, into) for into, out in itertools.pairwise(dims))]


def minimise(problem, start, shapes, activation=torch.relu):
    def value_and_gradient(x):
        vector = torch.tensor(x, requires_grad=True)
        features, *weights = unpack(vector, shapes)
        value = objective(problem, features, weights, activation)
        value.backward()
        return value.item(), vector.grad.numpy()

    options = {"maxiter": 3000, "ftol": 1e-15, "gtol": 1e-9}
    return scipy.optimize.minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options).fun


def multi_start(problem, widths, starts=16, activation=torch.relu):
    shapes = shapes_of(problem, widths)
    size = sum(math.prod(shape) for shape in shapes)
    rng = np.random.default_rng(0)
    return [minimise(problem, rng.normal(size=size), shapes, activation) for _ in range(starts)]


def constructed(problem, width=7, seed=0):
    widths = [width + layer for layer in range(problem.depth)]
    return construct_optimum(problem, widths, torch.Generator().manual_seed(seed))


def flat(factors):
    return torch.cat([factors.features.flatten(), *(weight.flatten() for weight in factors.weights)])


# The values


@pytest.mark.parametrize(
    ("depth", "loss", "output", "singular_value", "critical"),
    [
        (2, 0.005519, 0.99631, 1.9170, 0.05386),
        (3, 0.005315, 0.99733, 1.6296, 0.05118),
        (4, 0.005464, 0.99781, 1.4781, 0.04810),
        (6, 0.006119, 0.99825, 1.3220, 0.04184),
        (8, 0.006949, 0.99845, 1.2425, 0.03648),
    ],
)
def test_the_values_descent_was_seen_to_reach(depth, loss, output, singular_value, critical):
    problem = dataclasses.replace(PAPER, depth=depth)
    optimum = collapsed_optimum(problem)
    assert optimum.loss == pytest.approx(loss, abs=5.1e-7)
    assert optimum.output == pytest.approx(output, abs=1e-5)
    assert optimum.singular_values == (None, *[pytest.approx(singular_value, abs=5.1e-5)] * (depth - 1))
    assert critical_decay(problem) == pytest.approx(critical, abs=5.1e-6)


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_value_matches_sixty_digit_arithmetic(depth):
    for decay, classes, samples in itertools.product((1e-12, 1e-8, 5e-4, 2e-2), (2, 3, 10, 1000), (1, 50, 10**9)):
        assert_matches_exact(uniform(classes, samples, depth, decay))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("distance", [1e-3, 1e-6, 1e-9, 1e-12])
def test_both_sides_of_the_threshold_match_sixty_digit_arithmetic(depth, distance):
    for classes, samples in ((2, 50), (3, 1), (10, 5000), (1000, 10**9)):
        below = near_threshold(classes, samples, depth, 1 - distance)
        above = near_threshold(classes, samples, depth, 1 + distance)
        assert not collapsed_optimum(below).zero_is_optimal
        assert collapsed_optimum(above).zero_is_optimal
        assert_matches_exact(below)
        assert_matches_exact(above)


@pytest.mark.parametrize("depth", DEPTHS)
def test_one_rounding_error_around_the_threshold_is_still_decided_right(depth):
    decay = critical_decay(uniform(2, 50, depth, 1.0))
    decay *= 1 - 16 * np.finfo(float).eps
    sides = []
    for _ in range(40):
        assert_matches_exact(uniform(2, 50, depth, decay))
        sides.append(collapsed_optimum(uniform(2, 50, depth, decay)).zero_is_optimal)
        decay = math.nextafter(decay, 1)
    assert sides == sorted(sides)
    assert sides[0] != sides[-1]


def decays():
    return st.floats(math.log(1e-12), 0.0).map(math.exp)


@st.composite
def problems(draw):
    depth = draw(st.integers(1, 50))
    layers = draw(st.one_of(decays(), st.lists(decays(), min_size=depth, max_size=depth)))
    return DufmProblem(draw(st.integers(2, 10**4)), draw(st.integers(1, 10**12)), depth, layers, draw(decays()))


@settings(deadline=None, max_examples=60)
@given(problems())
def test_any_problem_with_any_decay_per_layer_matches_sixty_digit_arithmetic(problem):
    assert_matches_exact(problem)


@settings(deadline=None, max_examples=60)
@given(problems())
def test_the_parts_add_up_and_every_factor_pays_the_same(problem):
    optimum = collapsed_optimum(problem)
    penalties = (optimum.feature_penalty, *optimum.weight_penalties)
    assert math.fsum((optimum.fit, *penalties)) == pytest.approx(optimum.loss, rel=1e-13)
    assert math.fsum(penalties) == pytest.approx(optimum.regularisation, rel=1e-13)
    norms = (optimum.feature_norm_squared, *optimum.weight_norms_squared)
    for decay, norm, penalty in zip((problem.feature_decay, *problem.weight_decays), norms, penalties, strict=True):
        assert decay * norm / 2 == pytest.approx(penalty, rel=1e-14)


@pytest.mark.parametrize("depth", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("factor", [0.05, 0.5, 0.9, 1.02, 1.3])
def test_numerical_minimisation_over_the_output_value_finds_the_same_loss(depth, factor):
    problem = near_threshold(3, 20, depth, factor)
    scale = 20 ** (1 / (depth + 1)) * problem.feature_decay

    def loss(q):
        return (1 - q) ** 2 / 2 + 3 * (depth + 1) / 2 * scale * q ** (2 / (depth + 1))

    grid = np.concatenate([[0.0], np.linspace(1e-6, 1, 2001)])
    best = grid[np.argmin(loss(grid))]
    if best > 0:
        bounds = (max(best - 1e-3, 0), min(best + 1e-3, 1))
        best = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
    assert collapsed_optimum(problem).loss == pytest.approx(loss(best), rel=1e-12)
    assert collapsed_optimum(problem).output == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("depth", DEPTHS)
def test_n_samples_equal_one_sample_with_n_times_the_feature_decay(depth):
    many = DufmProblem(2, 64, depth, 1e-3, 1e-3)
    one = DufmProblem(2, 1, depth, 1e-3, 64e-3)
    assert collapsed_optimum(many).loss == collapsed_optimum(one).loss
    assert collapsed_optimum(many).weight_norms_squared == collapsed_optimum(one).weight_norms_squared


@pytest.mark.parametrize("depth", DEPTHS)
def test_loss_rises_and_output_falls_with_any_decay(depth):
    for position in {0, 1, depth}:
        losses, outputs = [], []
        for decay in np.geomspace(1e-6, 1e3, 40):
            layers = [1e-3] * (depth + 1)
            layers[position] = float(decay)
            optimum = collapsed_optimum(DufmProblem(3, 10, depth, layers[1:], layers[0]))
            losses.append(optimum.loss)
            outputs.append(optimum.output)
        assert losses == sorted(losses)
        assert outputs == sorted(outputs, reverse=True)


# The threshold


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_critical_product_is_where_the_collapsed_loss_meets_one_half(depth, classes):
    """Tangency of loss(q) = 1/2 at its stationary point, solved by bisection on the loss alone."""

    def excess(log_product):
        c = math.exp(log_product / (depth + 1))
        q = np.linspace(1e-9, 1, 200001)
        return np.min((1 - q) ** 2 / 2 + classes * (depth + 1) / 2 * c * q ** (2 / (depth + 1))) - 0.5 * (1 - 1e-9)

    log_critical = scipy.optimize.brentq(excess, -400, 10)
    tolerance = 1e-7 if depth > 1 else 1e-4  # at depth 1 the loss meets 1/2 tangentially
    assert math.log(critical_product(classes, depth)) == pytest.approx(log_critical, abs=tolerance)


def test_critical_product_is_the_papers_for_two_classes():
    for depth in range(2, 51):
        paper = mpmath.mpf(depth - 1) ** (depth - 1) / (mpmath.mpf(2) ** (depth + 1) * mpmath.mpf(depth) ** (2 * depth))
        assert critical_product(2, depth) == pytest.approx(float(paper), rel=1e-14)


@pytest.mark.parametrize("depth", DEPTHS)
def test_critical_decay_in_every_factor_gives_the_critical_product(depth):
    for classes, samples in ((2, 50), (10, 1), (10**6, 10**12)):
        decay = critical_decay(uniform(classes, samples, depth, 0.3))
        with mpmath.workdps(60):
            critical = mpmath.mpf(depth - 1) ** (depth - 1) if depth > 1 else mpmath.mpf(1)
            critical /= mpmath.mpf(classes) ** (depth + 1) * mpmath.mpf(depth) ** (2 * depth)
            expected = mpmath.root(critical / samples, depth + 1)
        assert decay == pytest.approx(float(expected), rel=1e-14)


def test_zero_is_returned_exactly_at_the_threshold():
    at_depth_one = DufmProblem(2, 1, 1, 0.5, 0.5)  # n Λ = 1/4 = critical_product(2, 1), without rounding
    at_depth_two = DufmProblem(2, 1, 2, (0.25, 0.125), 0.25)  # n Λ = 1/128 = critical_product(2, 2)
    for problem in (at_depth_one, at_depth_two):
        optimum = collapsed_optimum(problem)
        assert optimum.zero_is_optimal
        assert (optimum.loss, optimum.output, optimum.feature_norm_squared) == (0.5, 0.0, 0.0)
        below = dataclasses.replace(problem, feature_decay=math.nextafter(problem.feature_decay, 0))
        assert not collapsed_optimum(below).zero_is_optimal
    assert collapsed_optimum(below).output == pytest.approx(1 / 2, rel=1e-12)  # (L-1)/L


# The objective itself


@pytest.mark.parametrize(("depth", "factor"), [(2, 0.4), (2, 0.9), (3, 0.3), (3, 0.8)])
def test_the_best_of_many_descents_is_the_closed_form_and_none_is_below(depth, factor):
    problem = near_threshold(2, 2, depth, factor)
    found, loss = multi_start(problem, widths=(4,) * depth), collapsed_optimum(problem).loss
    assert min(found) == pytest.approx(loss, rel=1e-8)
    assert min(found) >= loss * (1 - 1e-12)


@pytest.mark.parametrize(("depth", "factor"), [(2, 1.05), (3, 1.1), (3, 2.0)])
def test_beyond_the_threshold_no_descent_gets_below_zeros_loss(depth, factor):
    problem = near_threshold(2, 2, depth, factor)
    assert collapsed_optimum(problem).loss == 0.5
    found = multi_start(problem, widths=(4,) * depth)
    assert min(found) == pytest.approx(0.5, rel=1e-8)
    assert min(found) >= 0.5 * (1 - 1e-12)


@pytest.mark.parametrize(("classes", "depth"), [(2, 3), (3, 1), (3, 2)])
def test_a_linear_head_has_the_same_optimum(classes, depth):
    problem = near_threshold(classes, 2, depth, 0.5)
    found, loss = multi_start(problem, (4,) * depth, activation=lambda hidden: hidden), collapsed_optimum(problem).loss
    assert min(found) == pytest.approx(loss, rel=1e-8)
    assert min(found) >= loss * (1 - 1e-12)


CONSTRUCTIONS = [
    PAPER,
    DufmProblem(2, 3, 1, 1e-2, 2e-2),
    DufmProblem(3, 4, 2, (1e-2, 3e-3), 5e-3),
    DufmProblem(5, 2, 4, (1e-3, 2e-4, 5e-3, 1e-3), 7e-4),
    DufmProblem(2, 1, 50, 1e-4, 1e-4),
    DufmProblem(2, 10, 3, 1e-12, 1e-12),
    near_threshold(2, 5, 3, 1 - 1e-9),
    near_threshold(2, 5, 3, 1 + 1e-9),
]


@pytest.mark.parametrize("problem", CONSTRUCTIONS)
@pytest.mark.parametrize("activation", [torch.relu, torch.clone], ids=["relu", "linear"])
def test_the_constructed_point_attains_the_closed_form_and_is_stationary(problem, activation):
    factors = constructed(problem)
    leaves = [factors.features.requires_grad_(), *(weight.requires_grad_() for weight in factors.weights)]
    value = objective(problem, leaves[0], leaves[1:], activation)
    assert value.item() == pytest.approx(collapsed_optimum(problem).loss, rel=1e-12, abs=0)
    gradients = torch.autograd.grad(value, leaves)
    # A gradient is decay * factor plus the fit's opposite: rounding scales with what cancels.
    terms = [
        decay * leaf.norm() for decay, leaf in zip((problem.feature_decay, *problem.weight_decays), leaves, strict=True)
    ]
    for gradient, term in zip(gradients, terms, strict=True):
        assert gradient.norm() <= 1e-12 * (1 + 1e2 * term)


@pytest.mark.parametrize(
    "problem", [PAPER, CONSTRUCTIONS[1], near_threshold(2, 5, 3, 0.7), near_threshold(2, 5, 4, 0.99)]
)
def test_no_direction_leads_down_from_the_constructed_point(problem):
    """Second differences of the actual objective, kinks included, along random and layer-wise directions."""
    factors = constructed(problem)
    point, shapes = flat(factors), [factors.features.shape, *(weight.shape for weight in factors.weights)]
    generator = torch.Generator().manual_seed(1)
    loss = collapsed_optimum(problem).loss
    for trial in range(200):
        parts = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
        if trial % 2:  # one factor alone
            parts = [part * (index == trial // 2 % len(parts)) for index, part in enumerate(parts)]
        direction = torch.cat([part.flatten() for part in parts])
        direction /= direction.norm()
        for step in (1e-4, 1e-2, 0.3):
            moved_up, moved_down = (
                objective(problem, *_split(unpack(point + sign * step * direction, shapes))).item() for sign in (1, -1)
            )
            assert min(moved_up, moved_down) >= loss - 1e-14
            assert (moved_up + moved_down - 2 * loss) / step**2 >= -1e-6


def _split(parts):
    return parts[0], parts[1:]


@pytest.mark.parametrize("problem", [PAPER, near_threshold(2, 5, 3, 0.7)])
def test_the_hessian_where_no_unit_changes_sign_has_no_negative_direction(problem):
    """Autograd Hessian-vector products at the constructed point; ReLU's kinks count as zero slope there."""
    factors = constructed(problem, width=4)
    shapes = [factors.features.shape, *(weight.shape for weight in factors.weights)]
    point = flat(factors).requires_grad_()
    gradient = torch.autograd.grad(objective(problem, *_split(unpack(point, shapes))), point, create_graph=True)[0]
    generator = torch.Generator().manual_seed(2)
    for _ in range(100):
        direction = torch.randn(len(point), dtype=torch.float64, generator=generator)
        product = torch.autograd.grad(gradient, point, direction, retain_graph=True)[0]
        assert direction @ product >= -1e-12 * direction.square().sum()


@pytest.mark.parametrize("problem", CONSTRUCTIONS[:-1])
def test_the_constructed_point_is_exactly_collapsed(problem):
    factors = constructed(problem)
    hidden, layers = factors.features.numpy(), []
    for index, weight in enumerate(factors.weights):
        post = hidden if index == 0 else np.maximum(hidden, 0)
        layers.append((hidden, post, weight.numpy()))
        hidden = post @ weight.numpy().T
    for index, (pre, post, weight) in enumerate(layers):
        for tap in (pre, post):
            by_class = tap.reshape(problem.num_classes, problem.samples_per_class, -1)
            means = by_class.mean(axis=1)
            assert np.abs(by_class - means[:, None]).max() <= 1e-14 * np.abs(tap).max()  # DNC1
            singular = np.linalg.svd(means, compute_uv=False)
            assert singular[0] / singular[problem.num_classes - 1] == pytest.approx(1, abs=1e-12)  # DNC2
        if index > 0:
            directions = means / np.linalg.norm(means, axis=1, keepdims=True)
            along = np.abs(weight @ directions.T).max(axis=1)
            norms = np.linalg.norm(weight, axis=1)
            assert along == pytest.approx(norms, rel=1e-13)  # DNC3: every row along one class mean


@pytest.mark.parametrize("problem", CONSTRUCTIONS[:-1])
def test_the_constructed_factors_have_the_singular_values_and_norms_of_the_closed_form(problem):
    factors, optimum = constructed(problem), collapsed_optimum(problem)
    assert factors.features.square().sum().item() == pytest.approx(optimum.feature_norm_squared, rel=1e-12)
    for weight, value, norm in zip(factors.weights, optimum.singular_values, optimum.weight_norms_squared, strict=True):
        singular = torch.linalg.svdvals(weight)
        assert singular.square().sum().item() == pytest.approx(norm, rel=1e-12)
        assert (singular > 1e-12 * singular[0]).sum() == problem.num_classes
        if value is not None:
            assert singular[: problem.num_classes].tolist() == pytest.approx([value] * problem.num_classes, rel=1e-12)


def test_the_construction_keeps_the_documented_shapes_and_dtypes():
    factors = construct_optimum(DufmProblem(3, 4, 2, 1e-3, 1e-3), (7, 5), torch.Generator().manual_seed(0))
    assert factors.features.shape == (12, 7)
    assert [tuple(weight.shape) for weight in factors.weights] == [(5, 7), (3, 5)]
    assert {tensor.dtype for tensor in (factors.features, *factors.weights)} == {torch.float64}
    assert factors.labels.dtype == torch.int64
    assert factors.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_the_construction_depends_on_the_generator_alone():
    torch.manual_seed(0)
    first, again, other = constructed(PAPER, seed=1), constructed(PAPER, seed=1), constructed(PAPER, seed=2)
    assert torch.equal(flat(first), flat(again))
    for one, two in zip((first.features, *first.weights), (other.features, *other.weights), strict=True):
        assert not torch.allclose(one, two)


def test_widths_as_narrow_as_the_classes_are_enough():
    problem = DufmProblem(4, 2, 3, 1e-3, 1e-3)
    factors = construct_optimum(problem, (4, 4, 4), torch.Generator().manual_seed(0))
    assert objective(problem, factors.features, factors.weights).item() == pytest.approx(
        collapsed_optimum(problem).loss, rel=1e-12
    )


# Partial solutions and diagnosis


@pytest.mark.parametrize("problem", [PAPER, CONSTRUCTIONS[2], CONSTRUCTIONS[3]])
def test_partial_loss_is_attained_by_dropping_classes_from_the_optimum(problem):
    for fitted in range(problem.num_classes + 1):
        factors = constructed(problem)
        kept = torch.arange(problem.num_classes) < fitted
        means = factors.features[:: problem.samples_per_class]
        features = factors.features * kept[factors.labels, None]
        weights, entering = [], means
        for weight in factors.weights:  # remove each dropped class's direction from what the weight reads
            dropped = entering[~kept]
            directions = dropped / dropped.norm(dim=1, keepdim=True)
            weights.append(weight - weight @ directions.T @ directions)
            entering = torch.relu(entering @ weight.T)
        assert objective(problem, features, weights).item() == pytest.approx(partial_loss(problem, fitted), rel=1e-12)


def test_partial_losses_run_from_one_half_to_the_optimum():
    assert partial_loss(PAPER, 0) == 0.5
    assert partial_loss(PAPER, 2) == collapsed_optimum(PAPER).loss
    beyond = near_threshold(3, 5, 3, 2.0)
    assert [partial_loss(beyond, fitted) for fitted in range(4)] == [0.5] * 4


@pytest.mark.parametrize("gap", [0.0, 2e-4, 5e-3])
def test_a_descent_slightly_above_a_value_is_named_after_it(gap):
    names = ["zero solution", "1 of 2 classes fitted", "global optimum"]
    for fitted, name in enumerate(names):
        reference = partial_loss(PAPER, fitted)
        diagnosis = diagnose(PAPER, reference * (1 + gap))
        assert (diagnosis.name, diagnosis.fitted, diagnosis.reference) == (name, fitted, reference)
        assert diagnosis.gap == pytest.approx(gap, abs=1e-14)


@pytest.mark.parametrize("classes", [3, 4])
def test_more_than_two_classes_are_never_said_to_be_at_the_global_optimum(classes):
    problem = DufmProblem(classes, 10, 3, 1e-4, 1e-4)
    losses = np.geomspace(1e-6, 2, 500).tolist() + [partial_loss(problem, fitted) for fitted in range(classes + 1)]
    names = {diagnose(problem, loss).name for loss in losses}
    partial = {f"{fitted} of {classes} classes fitted" for fitted in range(1, classes)}
    values = {"zero solution", "collapsed solution", *partial}
    assert names == values | {"below all references", "none of them"}


def test_losses_at_no_value_are_said_to_be_at_none():
    for loss, nearest in ((0.006, 2), (0.2, 1), (0.26, 1), (0.49, 0), (0.6, 0), (1e9, 0)):
        diagnosis = diagnose(PAPER, loss)
        reference = partial_loss(PAPER, nearest)
        assert (diagnosis.name, diagnosis.fitted, diagnosis.reference) == ("none of them", None, reference)
        assert diagnosis.gap == pytest.approx(loss / reference - 1)


def test_a_loss_below_the_global_optimum_is_called_out():
    optimum = collapsed_optimum(PAPER).loss
    assert diagnose(PAPER, optimum * (1 - 1e-6)).name == "global optimum"  # rounding
    assert diagnose(PAPER, optimum * (1 - 1e-3)).name == "below the global optimum"
    assert diagnose(near_threshold(2, 50, 3, 2.0), 0.49).name == "below the zero solution"


def test_a_loss_just_left_behind_is_not_taken_for_the_value_it_left():
    assert diagnose(PAPER, 0.5 * (1 - 1e-3)).fitted is None
    assert diagnose(PAPER, partial_loss(PAPER, 1) * (1 - 1e-3)).fitted is None


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_has_diverged(loss):
    diagnosis = diagnose(PAPER, loss)
    assert (diagnosis.name, diagnosis.fitted) == ("diverged", None)
    assert diagnosis.reference == collapsed_optimum(PAPER).loss


def test_tolerance_widens_what_counts_as_reached():
    loss = collapsed_optimum(PAPER).loss * 1.03
    assert diagnose(PAPER, loss).fitted is None
    assert diagnose(PAPER, loss, tolerance=0.05).name == "global optimum"


@pytest.mark.parametrize(("depth", "factor"), [(3, 1.1), (3, 1.35), (6, 2.0)])
def test_between_threshold_and_fold_descent_can_stay_at_the_metastable_collapsed_solution(depth, factor):
    problem = near_threshold(2, 3, depth, factor)
    exact = Exact(problem)
    assert exact.exists
    assert float(exact.stationary_loss) > 0.5
    factors = constructed(near_threshold(2, 3, depth, 0.999), width=3)
    generator = torch.Generator().manual_seed(3)
    point = flat(factors) + 1e-2 * torch.randn(flat(factors).shape, dtype=torch.float64, generator=generator)
    shapes = [factors.features.shape, *(weight.shape for weight in factors.weights)]
    for _ in range(1500):  # plain steps: a line search would jump over the barrier to zero
        point.requires_grad_()
        value = objective(problem, *_split(unpack(point, shapes)))
        point = (point - 0.3 * torch.autograd.grad(value, point)[0]).detach()
    found = value.item()
    diagnosis = diagnose(problem, found)
    assert (diagnosis.name, diagnosis.fitted) == ("metastable collapsed solution", 2)
    assert diagnosis.reference == pytest.approx(float(exact.stationary_loss), rel=1e-10)
    assert abs(diagnosis.gap) < 1e-6


@pytest.mark.parametrize("depth", [2, 3, 6, 12, 50])
def test_beyond_the_fold_only_zero_is_left(depth):
    fold = (depth + 1) / 4 ** (depth / (depth + 1))  # of the common decay, in units of the critical one
    assert Exact(near_threshold(2, 3, depth, fold * (1 - 1e-9))).exists
    assert not Exact(near_threshold(2, 3, depth, fold * (1 + 1e-9))).exists
    q = (depth - 1) / (2 * depth)
    loss = (1 - q) * (1 + depth * q) / 2
    assert diagnose(near_threshold(2, 3, depth, fold * (1 - 1e-9)), loss).name == "metastable collapsed solution"
    assert diagnose(near_threshold(2, 3, depth, fold * (1 + 1e-9)), loss).name == "none of them"


# References


@pytest.mark.parametrize(("classes", "factor", "cheapest"), [(2, 0.5, "optimum"), (3, 0.5, "stationary")])
def test_references_are_the_states_of_all_numbers_of_fitted_classes(classes, factor, cheapest):
    problem = near_threshold(classes, 5, 3, factor)
    known = references(problem)
    assert [reference.value for reference in known] == [partial_loss(problem, m) for m in range(classes + 1)]
    assert lowest(known).value == collapsed_optimum(problem).loss and lowest(known).kind == cheapest
    assert [reference.kind for reference in known[:-1]] == ["stationary"] * classes
    assert not lowest(known).is_zero and known[0].is_zero


@pytest.mark.parametrize(("factor", "count"), [(1.1, 3), (5.0, 1)])
def test_beyond_the_threshold_the_cheapest_reference_is_zero(factor, count):
    known = references(near_threshold(2, 5, 3, factor))
    assert len(known) == count and lowest(known) is known[0]
    assert known[0].is_zero and known[0].kind == "optimum"


def test_a_bound_is_no_value_to_sit_at():
    bound, point = Reference("linear bound", 0.1, "bound"), Reference("frames", 0.2, "attained", (2, 2, 3))
    assert lowest([bound, point]) is point and not bound.is_zero
    assert diagnose_among([bound, point], 0.1).name == "below all references"
    assert diagnose_among([bound, point], 0.2001) == Diagnosis("frames", None, 0.2, pytest.approx(5e-4))


# Bad input

BAD_INTEGERS = st.one_of(
    st.integers(max_value=0), st.booleans(), st.floats(), st.none(), st.text(), st.just([2]), st.just(np.float64(2.0))
)
BAD_DECAYS = st.one_of(
    st.floats(max_value=0.0),
    st.sampled_from([math.nan, math.inf, -math.inf, True, None, "0.1", 1j, 10**400, np.nan]),
    st.integers(max_value=0),
)


@given(st.sampled_from(["num_classes", "samples_per_class", "depth"]), BAD_INTEGERS)
def test_a_count_that_is_no_positive_integer_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is "):
        dataclasses.replace(PAPER, **{name: value})


@given(st.sampled_from(["weight_decay", "feature_decay"]), BAD_DECAYS)
def test_a_decay_that_is_not_positive_and_finite_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"^{name} is "):
        dataclasses.replace(PAPER, **{name: value})


@given(st.integers(0, 2), BAD_DECAYS)
def test_one_bad_decay_among_the_layers_is_refused(position, value):
    layers = [1e-3] * 3
    layers[position] = value
    with pytest.raises(ValueError, match=r"^weight_decay is "):
        dataclasses.replace(PAPER, weight_decay=layers)


@pytest.mark.parametrize("layers", [(), (1e-3,), (1e-3,) * 4, np.full((3, 3), 1e-3)])
def test_weight_decays_must_be_one_per_layer(layers):
    with pytest.raises(ValueError, match=r"^weight_decay"):
        dataclasses.replace(PAPER, weight_decay=layers)


def test_a_single_class_is_no_classification_problem():
    with pytest.raises(ValueError, match=r"^num_classes is 1, must be an integer >= 2"):
        DufmProblem(1, 1, 1, 0.1, 0.1)


def test_numpy_numbers_and_arrays_are_taken_and_normalised():
    problem = DufmProblem(np.int64(2), np.int32(50), np.int64(3), np.full(3, 5e-4), np.float64(5e-4))
    assert problem == DufmProblem(2, 50, 3, (5e-4, 5e-4, 5e-4), 5e-4)
    assert type(problem.num_classes) is int
    assert hash(problem) == hash(DufmProblem(2, 50, 3, [5e-4] * 3, 5e-4))
    assert collapsed_optimum(problem) == collapsed_optimum(PAPER)


@pytest.mark.parametrize(("name", "arguments"), [("num_classes", (1, 3)), ("depth", (2, 0)), ("depth", (2, 1.5))])
def test_critical_product_refuses_bad_counts_by_name(name, arguments):
    with pytest.raises(ValueError, match=rf"^{name} is "):
        critical_product(*arguments)


@pytest.mark.parametrize("fitted", [-1, 3, 1.0, True, None])
def test_fitted_classes_must_be_a_count_up_to_all_of_them(fitted):
    with pytest.raises(ValueError, match=r"^fitted is .* from 0 to 2"):
        partial_loss(PAPER, fitted)


@pytest.mark.parametrize("tolerance", [-1e-3, math.nan, math.inf, None, True])
def test_tolerance_must_be_finite_and_non_negative(tolerance):
    with pytest.raises(ValueError, match=r"^tolerance is "):
        diagnose(PAPER, 0.5, tolerance)


@pytest.mark.parametrize("widths", [(4, 4), (4, 4, 4, 4), (4, 1, 4), (1, 4, 4), (4, 4, 2.0), 4, ()])
def test_widths_must_be_one_per_layer_and_hold_all_classes(widths):
    with pytest.raises(ValueError, match=r"^widths is "):
        construct_optimum(PAPER, widths, torch.Generator())


@pytest.mark.parametrize("module", ["_problem", "_references", "providers.collapsed"])
def test_the_examples_in_the_docstrings_hold(module):
    results = doctest.testmod(importlib.import_module(f"pipeline.theory.{module}"))
    assert results.attempted >= 1
    assert results.failed == 0
