"""Shallow networks: attainability by linear programme, its probability, what collapse costs, residual blocks."""

import doctest
import math

import numpy as np
import pytest
import scipy.optimize
import torch
from theory_goldens import printed

from pipeline.metrics import dnc1
from pipeline.theory import (
    Problem,
    attainability,
    attainability_probability,
    attaining_network,
    gufm_optimum,
    references,
    shallow,
    splitting_cost,
    ufm_nonnegative,
)
from pipeline.theory.providers import sphere


def mixture(samples: int, dim: int, classes: int, signal: float) -> tuple[torch.Tensor, torch.Tensor]:
    """M(N, d, K, s) of the specification."""
    rows = math.sqrt(2) * (1 + torch.arange(samples * dim, dtype=torch.float64) ** 1.5).sin().view(samples, dim)
    labels = torch.arange(classes).repeat_interleave(samples // classes)
    rows[torch.arange(samples), labels] += signal
    return rows, labels


@pytest.mark.parametrize(
    ("signal", "dim", "first", "second"),
    [
        (0, 7, "1.921727789", "5.293770445"),
        (0, 8, "-1.000000000", "2.871030374"),
        (0, 9, "-0.195843067", "-1.000000000"),
        (3, 6, "4.541284013", "7.741012533"),
        (3, 7, "-0.109361943", "-0.209608376"),
    ],
)
def test_t_star_of_the_mixtures(signal, dim, first, second):
    rows, labels = mixture(12, dim, 2, signal)
    found = attainability(rows, labels)
    assert found.tolist() == [printed(first), printed(second)]
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert attainability(rows[shuffled], labels[shuffled]).tolist() == pytest.approx(found.tolist(), rel=1e-7)


def test_more_samples_than_dimensions_in_a_class_are_out_of_reach():
    assert attainability(*mixture(12, 5, 2, 0)).tolist() == [math.inf, math.inf]


def test_a_row_of_zeros_among_the_others_asks_for_t_of_at_least_zero():
    rows = torch.cat([torch.eye(3), torch.zeros(1, 3)])
    assert attainability(rows[:3], torch.tensor([0, 0, 1])).tolist() == [-1, -1]
    assert attainability(rows, torch.tensor([0, 0, 1, 1])).tolist() == [0, math.inf]  # its own class needs 0 = 1


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_t_star_does_not_depend_on_the_scale_of_the_rows(scale):
    rows, labels = mixture(12, 7, 2, 3)
    expected = attainability(rows, labels)
    torch.testing.assert_close(attainability(scale * rows, labels), expected, rtol=1e-8, atol=0)
    first, _ = attaining_network(scale * rows, labels, 1e-2, 1e-2)
    torch.testing.assert_close(scale * first, attaining_network(rows, labels, 1e-2, 1e-2)[0], rtol=1e-6, atol=1e-9)


def test_programmes_that_are_not_solved_are_in_the_span_of_the_rows(monkeypatch):
    """Rows that are independent need none; dependent ones in more columns than their rank have the same t* there."""
    solve = scipy.optimize.linprog

    def fails_in_many_columns(goal, **more):
        solved = solve(goal, **more)
        if len(goal) > 9:
            solved.status = 4
        return solved

    rows, labels = mixture(12, 8, 2, 3.0)
    wide = torch.cat([rows, 3 * rows[:, :2], torch.zeros(12, 3, dtype=torch.float64)], dim=1)
    expected = attainability(wide, labels)
    monkeypatch.setattr(scipy.optimize, "linprog", fails_in_many_columns)
    assert attainability(wide, labels).tolist() == pytest.approx(expected.tolist(), rel=1e-7)
    assert attainability(*mixture(12, 15, 2, 0.0)).tolist() == [-1, -1]
    first, _ = attaining_network(*mixture(12, 15, 2, 0.0), 1e-2, 1e-2)
    own = mixture(12, 15, 2, 0.0)[0] @ first.T
    assert own[:6, 0].tolist() == pytest.approx([own[0, 0].item()] * 6) and (own[6:, 0] < 0).all()
    with pytest.raises(ValueError, match="was not solved"):
        attainability(torch.randn(12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), labels)


def objective(rows, labels, first, last, decays, loss) -> float:
    features = torch.relu(rows @ first.T)
    outputs = features @ last.T
    if loss == "mse":
        wanted = torch.eye(len(last), dtype=torch.float64)[labels]
        fit = (outputs - wanted).square().sum() / (2 * len(rows))
    else:
        fit = torch.nn.functional.cross_entropy(outputs, labels)
    return float(fit + decays[0] / 2 * last.square().sum() + decays[1] / 2 * features.square().sum())


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("case", [(12, 9, 2, 0), (12, 7, 2, 3), (15, 15, 3, 1)])
def test_an_attaining_network_has_the_value_of_free_features(case, loss):
    rows, labels = mixture(*case)
    decays = (1e-2, 1e-2) if case[2] == 2 else (5e-3, 2e-3)
    first, last = attaining_network(rows, labels, *decays, loss)
    closed = ufm_nonnegative(case[2], case[0] // case[2], *decays, loss).loss
    assert objective(rows, labels, first, last, decays, loss) == pytest.approx(closed, rel=1e-12)


def descended(dim: int, seed: int, width: int = 40) -> tuple[float, np.ndarray]:
    """Where L-BFGS ends from a random start on 12 rows of two classes without signal: the value, and the features."""
    rows, labels = (part.numpy() for part in mixture(12, dim, 2, 0))

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        first, last = point[: width * dim].reshape(width, dim), point[width * dim :].reshape(2, width)
        features = np.maximum(rows @ first.T, 0)
        errors = features @ last.T - np.eye(2)[labels]
        value = (errors**2).sum() / 24 + 5e-3 * (last**2).sum() + 5e-3 * (features**2).sum()
        slopes = (errors @ last / 12 + 1e-2 * features) * (features > 0)
        return value, np.r_[(slopes.T @ rows).ravel(), (errors.T @ features / 12 + 1e-2 * last).ravel()]

    drawn = np.random.default_rng(seed).standard_normal(width * (dim + 2))
    scale = np.r_[np.full(width * dim, dim**-0.5), np.full(2 * width, width**-0.5)]
    options = {"maxiter": 20000, "maxfun": 40000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 30}
    found = scipy.optimize.minimize(objective, drawn * scale, jac=True, method="L-BFGS-B", options=options)
    return found.fun, np.maximum(rows @ found.x[: width * dim].reshape(width, dim).T, 0)


def test_descents_reach_the_bound_where_it_is_attainable_and_nowhere_else():
    bound = ufm_nonnegative(2, 6, 1e-2, 1e-2).loss
    reached = (found for seed in range(40) if (found := descended(9, seed))[0] < bound * (1 + 1e-7))
    value, features = next(reached)  # a third of the starts get there
    assert value == printed("0.047789795")
    assert float(dnc1(torch.from_numpy(features), torch.arange(2).repeat_interleave(6), 2)) < 1e-8
    # d = 8 is not attainable. 0.054272470 was the best of six starts before; one of these finds 0.053524335.
    assert 1.05 * bound < min(descended(8, seed)[0] for seed in range(3)) < 0.0545


@pytest.mark.parametrize(("dim", "best"), [(7, 0.056880365), (6, 0.067475507)])
def test_starts_that_cannot_reach_the_bound_end_near_the_best_that_was_found(dim, best):
    # Searched, not proven: other starts end up to .4 % above, and .04 % below.
    values = [descended(dim, seed)[0] for seed in range(2)]
    assert min(values) > 1.1 * ufm_nonnegative(2, 6, 1e-2, 1e-2).loss
    assert values == pytest.approx([best, best], rel=5e-3)


def test_unattainable_and_unequal_classes_have_no_network():
    with pytest.raises(ValueError, match="collapse is not attainable"):
        attaining_network(*mixture(12, 8, 2, 0), 1e-2, 1e-2)
    with pytest.raises(ValueError, match=r"labels have \[2, 1\] samples"):
        attaining_network(torch.eye(3), torch.tensor([0, 0, 1]), 1e-2, 1e-2)


def test_values_of_free_nonnegative_features():
    for classes, samples, decays, loss, value, output in (
        (2, 6, (1e-2, 1e-2), "mse", "0.047789794856", "0.951010205"),
        (2, 6, (1e-2, 1e-2), "cross_entropy", "0.150521894493", "3.327461618"),
        (3, 5, (5e-3, 2e-3), "mse", "0.020988203436", None),
        (3, 5, (5e-3, 2e-3), "cross_entropy", "0.099424921697", "4.731538959"),
    ):
        found = ufm_nonnegative(classes, samples, *decays, loss)
        assert found.loss == printed(value) and (output is None or found.output == printed(output))
        problem = Problem(loss, "relu", (samples,) * classes, 1, *decays, constraint="nonnegative")
        optima = [state.value for state in references(problem) if state.kind == "optimum"]
        assert optima == [pytest.approx(found.loss, rel=1e-13)]
    assert ufm_nonnegative(2, 5, 0.9, 0.9).output == 0 and ufm_nonnegative(2, 5, 0.9, 0.9, "cross_entropy").output == 0
    with pytest.raises(ValueError, match=r"^loss is 'hinge'"):
        ufm_nonnegative(2, 5, 1e-2, 1e-2, "hinge")


def test_probabilities_without_signal():
    for case, value in (
        ((2, 20, 28), "0.251722336"),
        ((2, 20, 30), "0.588098526"),
        ((3, 20, 40), "0.562685344"),
        ((2, 6, 8), "0.34375"),
        ((2, 20, 19), "0.0"),
        ((2, 20, 39), "0.999999"),
        ((2, 20, 40), "1.0"),
    ):
        assert attainability_probability(*case) == printed(value)
    assert attainability_probability(3, 8, 8 + (24 - 8) // 2 - 1) == pytest.approx(0.5, abs=0.1)
    assert attainability_probability(10, 5000, 30000) > 0.99


def test_draws_agree_with_the_probability():
    """300 programmes on Gaussian rows, within three standard errors."""
    generator, hits = torch.Generator().manual_seed(0), 0
    labels = torch.arange(2).repeat_interleave(6)
    for _ in range(150):
        rows = torch.randn(12, 8, dtype=torch.float64, generator=generator)
        hits += int((attainability(rows, labels) <= 0).sum())
    chance = attainability_probability(2, 6, 8)
    assert abs(hits / 300 - chance) < 3 * math.sqrt(chance * (1 - chance) / 300) * math.sqrt(2)  # pairs depend


@pytest.mark.parametrize(
    ("features", "labels", "said"),
    [
        (torch.eye(3), torch.tensor([0, 1]), "labels has the shape"),
        (torch.eye(3), torch.tensor([True, False, True]), "the type torch.bool, must be 3 integers"),
        (torch.eye(2), torch.tensor([0.0, 1.0]), "labels has the shape"),
        (torch.eye(2), torch.tensor([0, 2]), r"labels have \[1, 0, 1\]"),
        (torch.eye(2), torch.tensor([0, 0]), r"labels have \[2\]"),
        (torch.ones(2), torch.tensor([0, 1]), "features has the shape"),
        ("rows", torch.tensor([0, 1]), "features is 'rows', must be a matrix"),
        (torch.eye(2), ["a", "b"], r"labels is \['a', 'b'\], must be 2 integers"),
    ],
)
def test_rows_and_labels_that_do_not_fit_are_refused(features, labels, said):
    with pytest.raises(ValueError, match=said):
        attainability(features, labels)


# Fixed norms and residual blocks


def test_values_of_fixed_norms():
    for case, cross_entropy, row_norm, mse in (
        ((2, 5e-3, 1), "0.036357670", "2.240236", "0.004950495"),
        ((3, 1e-2, 8), "0.033292499", "1.271727", "0.001867995"),
        ((10, 5e-3, 64), "0.022759367", "0.848007", "0.000390320"),
    ):
        found = gufm_optimum(*case, "cross_entropy")
        assert found.loss == printed(cross_entropy) and found.row_norm == printed(row_norm)
        assert gufm_optimum(*case, "mse").loss == printed(mse)
        margin = found.row_norm * math.sqrt(case[2]) * case[0] / (case[0] - 1)
        assert found.output == pytest.approx(margin, rel=1e-12)


def test_descents_of_fixed_norms_find_nothing_lower():
    generator = torch.Generator().manual_seed(0)
    for loss, constraint in (("mse", "sphere"), ("cross_entropy", "sphere"), ("cross_entropy", "nonnegative_sphere")):
        problem = Problem(loss, "linear", (2,) * 3, 1, 2e-2, 0, constraint=constraint)
        (known,) = references(problem)
        found = []
        for _ in range(3):
            free = [torch.randn(6, 4, dtype=torch.float64, generator=generator), torch.zeros(3, 4).double()]
            free[1] += 0.1 * torch.randn(3, 4, dtype=torch.float64, generator=generator)
            optimizer = torch.optim.LBFGS(
                [leaf.requires_grad_() for leaf in free], 1, 300, line_search_fn="strong_wolfe"
            )

            def value(free=free, constraint=constraint, problem=problem, loss=loss, optimizer=optimizer):
                optimizer.zero_grad()
                rows = free[0].square() if constraint == "nonnegative_sphere" else free[0]
                outputs = torch.nn.functional.normalize(rows, dim=1) @ free[1].T
                if loss == "mse":
                    cost = (outputs - problem.target_matrix).square().sum() / 12
                else:
                    cost = torch.nn.functional.cross_entropy(outputs, problem.labels)
                cost = cost + 1e-2 * free[1].square().sum()
                cost.backward()
                return cost

            optimizer.step(value)
            found.append(float(value().detach()))
        assert min(found) == pytest.approx(known.value, rel=1e-6) and min(found) > known.value * (1 - 1e-12)


def test_costs_of_splitting_a_move_over_blocks():
    for depth, one, two in (
        (5, "0.110556004", "0.743491775"),
        (10, "0.051514299", "0.717734625"),
        (34, "0.014422511", "0.700260926"),
    ):
        assert splitting_cost(2, depth) == printed(one) and splitting_cost(2, depth, factors=2) == printed(two)
    assert splitting_cost(2, 10**6, factors=2) == pytest.approx(math.log(2), rel=1e-5)


def test_docstring_examples_hold():
    for module in (shallow, sphere):
        assert doctest.testmod(module).attempted > 0 and doctest.testmod(module).failed == 0
