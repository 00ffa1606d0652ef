"""States that only searches find, below all that has a closed form: points of theirs stand in a file.

The specification prints values of L-BFGS searches from many starts. The points here are of a search of ours (one column
per class, heavy-ball descent, restarts from perturbed references), at or below those values; float32, so a value is
right to about 1e-6. A point is no proof that nothing is lower.
"""

from pathlib import Path

import pytest
from safetensors import safe_open

from pipeline.dufm import objective
from pipeline.dufm.objectives import load_objective
from pipeline.theory import Problem, collapsed_optimum, diagnose, lowest, references

FILE = Path(__file__).with_name("upper_bounds.safetensors")
MSE, CE = "mse", "cross_entropy"
BOUNDS = [
    (MSE, 3, 4, 1, 4e-3, 0.0292883706),
    (MSE, 3, 4, 50, 4e-3, 0.0639530),
    (MSE, 3, 5, 1, 4e-3, 0.0330536),
    (MSE, 3, 6, 1, 4e-3, 0.0368441),
    (MSE, 4, 4, 1, 4e-3, 0.0392076550),
    (MSE, 5, 4, 1, 4e-3, 0.04743),
    (MSE, 6, 4, 1, 4e-3, 0.0558175),
    (MSE, 6, 4, 50, 4e-3, 0.1223241),
    (MSE, 10, 3, 1, 4e-3, 0.07895),
    (MSE, 10, 4, 1, 4e-3, 0.0809387),
    (MSE, 10, 4, 10, 4e-3, 0.1396),
    (MSE, 10, 4, 50, 4e-3, 0.1842728),
    (MSE, 15, 3, 1, 4e-3, 0.1119690),
    (MSE, 15, 4, 1, 4e-3, 0.1113608),
    (MSE, 3, 5, 40, 1e-2, 0.15109),
    (CE, 10, 3, 5, 2**-9, 0.138512879),
    (CE, 10, 4, 5, 2**-9, 0.116588477),
]
"""Loss, K, L, n, all decays, and the value that the specification prints."""


def name_of(loss: str, classes: int, depth: int, samples: int) -> str:
    return f"{loss}-{classes}-{depth}-{samples}"


@pytest.mark.parametrize(("loss", "classes", "depth", "samples", "decay", "bound"), BOUNDS)
def test_a_point_is_at_most_at_the_printed_value_and_below_all_closed_forms(
    loss, classes, depth, samples, decay, bound
):
    with safe_open(FILE, "pt") as held:
        name = name_of(loss, classes, depth, samples)
        features, *weights = (held.get_tensor(f"{name}/{factor}").double() for factor in range(depth + 1))
    problem = Problem(loss, "relu", (samples,) * classes, depth, decay, decay)
    rows = features.repeat_interleave(samples, dim=0)
    value = objective(rows, weights, problem.labels, decay, decay, loss=load_objective(loss)).total.item()
    assert value <= bound
    assert value < lowest(references(problem)).value and diagnose(problem, value).name == "below all references"


def test_where_four_relu_seeds_of_the_spectra_ended():
    """arXiv 2404.06106, K = 3, n = 40, L = 5: .15109 of rank 2, collapse, and twice two of three classes."""
    problem = Problem("mse", "relu", (40,) * 3, 5, 1e-2, 1e-2)
    assert collapsed_optimum(problem).loss == pytest.approx(0.16487, abs=4e-5)
    names = [diagnose(problem, value).name for value in (0.15109, 0.16487, 0.27656)]
    assert names == ["below all references", "collapsed solution", "2 of 3 classes fitted"]
