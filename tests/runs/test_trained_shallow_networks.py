"""Shallow networks by L-BFGS: the objective by hand, and the bound reached where it is attainable and nowhere else."""

import math

import pytest
import torch

from pipeline.dufm.objectives import load_objective
from pipeline.metrics import layer_metrics
from pipeline.runs.shallow_networks import trained
from pipeline.theory import ufm_nonnegative

LABELS = torch.arange(2).repeat_interleave(6)


def mixture(dim: int, signal: float = 0.0) -> torch.Tensor:
    """M(12, d, 2, s) of the specification."""
    rows = math.sqrt(2) * (1 + torch.arange(12 * dim, dtype=torch.float64) ** 1.5).sin().view(12, dim)
    rows[torch.arange(12), LABELS] += signal
    return rows


def best_of(rows: torch.Tensor, hidden: list[int], loss: str, starts: int = 4, iterations: int = 250):
    sources = [torch.Generator().manual_seed(start) for start in range(starts)]
    return trained(rows, LABELS, 2, hidden, load_objective(loss), (1e-2, 1e-2), sources, iterations)


def test_the_bound_is_reached_where_it_is_attainable_and_nowhere_else():
    """At signal 3 both t* are negative for d = 7, positive for d = 6."""
    bound = ufm_nonnegative(2, 6, 1e-2, 1e-2).loss
    there, short = (best_of(mixture(dim, 3.0), [8], "mse", 5) for dim in (7, 6))
    assert there.objective.min().item() == pytest.approx(bound, rel=1e-7)
    best = there.features[there.objective.argmin()]
    assert layer_metrics(best, LABELS, 2)["dnc1"] < 1e-6
    assert short.objective.min() > 1.05 * bound


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_the_objective_is_that_of_the_weights_and_falls(loss):
    first, later = (best_of(mixture(5), [7, 4], loss, 2, iterations) for iterations in (0, 30))
    for found in (first, later):
        one, two, last = found.weights
        features = torch.relu(torch.relu(mixture(5) @ one.mT) @ two.mT)
        torch.testing.assert_close(found.features, features)
        for member in range(2):
            outputs = features[member] @ last[member].T
            if loss == "mse":
                fit = (outputs - torch.eye(2).double()[LABELS]).square().sum() / 24
            else:
                fit = torch.nn.functional.cross_entropy(outputs, LABELS)
            value = fit + 5e-3 * (last[member].square().sum() + features[member].square().sum())
            assert found.objective[member].item() == pytest.approx(value.item(), rel=1e-12)
    assert (later.objective < 0.9 * first.objective).all()
