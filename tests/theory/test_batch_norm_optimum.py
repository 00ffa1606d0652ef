"""Batch norm and weight decay: the specification's numbers, the general bound, descent."""

import doctest
import math

import pytest
import torch
from theory_goldens import printed

from pipeline.theory import batch_norm, bn_optimum, cross_entropy_bound


@pytest.mark.parametrize(
    ("classes", "decay", "loss", "norm", "margin"),
    [
        (2, 0.01, "0.042060124706", "3.496393841450", "4.944647589977"),
        (4, 5e-4, "0.006970255910", "12.439949038067", "8.293299358711"),
        (10, 5e-4, "0.013876603802", "24.905130786169", "8.750770967630"),
    ],
)
def test_values_of_the_optimum(classes, decay, loss, norm, margin):
    found = bn_optimum(classes, decay)
    assert (found.loss, found.squared_norm, found.margin) == (printed(loss), printed(norm), printed(margin))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_zero_is_optimal_from_one_over_the_root_of_k_on(classes):
    limit = 1 / math.sqrt(classes)
    assert bn_optimum(classes, limit * (1 - 1e-6)).margin > 0
    for factor in (1 + 1e-6, 2, 1e3):
        zero = bn_optimum(classes, limit * factor)
        assert (zero.loss, zero.squared_norm, zero.margin) == (math.log(classes), 0, 0)


def test_the_optimum_is_the_bound_at_its_norms_and_no_norms_are_better():
    for classes, decay in ((2, 0.05), (5, 1e-2), (20, 1e-3)):
        found = bn_optimum(classes, decay)
        norms = [found.squared_norm * factor for factor in (1, 0.9, 1.1)]
        costs = [cross_entropy_bound(classes, math.sqrt(s), math.sqrt(s)) + decay * s for s in norms]
        assert costs[0] == pytest.approx(found.loss, rel=1e-13) and costs[0] < min(costs[1:])


def test_no_features_and_weights_are_below_the_bound():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        classes = int(torch.randint(2, 6, (), generator=generator))
        features = torch.randn(3 * classes, 4, dtype=torch.float64, generator=generator)
        weight = 3 * torch.randn(classes, 4, dtype=torch.float64, generator=generator)
        labels = torch.arange(classes).repeat(3)
        loss = torch.nn.functional.cross_entropy(features @ weight.T, labels).item()
        norm = features.square().sum(dim=1).mean().sqrt().item()
        assert loss >= cross_entropy_bound(classes, norm, weight.norm().item())


@pytest.mark.parametrize(("classes", "samples", "dim", "decay"), [(3, 6, 4, 0.01), (4, 5, 8, 0.01)])
def test_descent_on_features_scales_and_weights_ends_there(classes, samples, dim, decay):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(classes * samples, dim, dtype=torch.float64, generator=generator).requires_grad_()
    scale = torch.ones(dim, dtype=torch.float64).requires_grad_()
    weight = torch.randn(classes, dim, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.arange(classes).repeat_interleave(samples)
    optimizer = torch.optim.LBFGS([rows, scale, weight], max_iter=600, line_search_fn="strong_wolfe")

    def objective() -> torch.Tensor:
        optimizer.zero_grad()
        normalised = (rows - rows.mean(dim=0)) / rows.var(dim=0, unbiased=False).sqrt()
        fit = torch.nn.functional.cross_entropy(scale * normalised @ weight.T, labels)
        value = fit + decay / 2 * (weight.square().sum() + scale.square().sum())
        value.backward()
        return value

    optimizer.step(objective)
    found, closed = float(objective().detach()), bn_optimum(classes, decay).loss
    assert found == pytest.approx(closed, rel=1e-6) and found >= closed * (1 - 1e-12)


@pytest.mark.parametrize(("classes", "decay"), [(1, 1e-3), (3, 0.0), (3, -1e-3)])
def test_one_class_and_decays_that_are_not_positive_are_refused(classes, decay):
    with pytest.raises(ValueError, match=r"^num_classes is 1|^decay is"):
        bn_optimum(classes, decay)


def test_docstring_examples_hold():
    assert doctest.testmod(batch_norm).attempted > 0 and doctest.testmod(batch_norm).failed == 0
