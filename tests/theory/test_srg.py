"""SRG: the specification's numbers, the shape of its class means, and the K it exists for."""

import doctest
import math

import pytest
import torch
from theory_goldens import printed

from pipeline.theory import DufmProblem, Problem, collapsed_optimum, named, references, srg_limit_ratio, srg_loss
from pipeline.theory.providers import srg

GOLDEN = [
    (6, 4, 1, 0.0575250251),
    (6, 4, 50, 0.1250650519),
    (10, 3, 1, 0.0826623385),
    (10, 4, 1, 0.0894708949),
    (10, 4, 10, 0.1411626191),
    (10, 4, 50, 0.1938316691),
    (15, 4, 1, 0.1271688035),
    (15, 7, 1, 0.1537784872),
]
COLLAPSED = [
    (3, 3, 1, 0.0239275627),
    (3, 4, 1, 0.0299274744),
    (3, 4, 50, 0.0652518492),
    (3, 5, 1, 0.0359274154),
    (3, 6, 1, 0.0419273731),
    (4, 4, 1, 0.0398707484),
    (5, 4, 1, 0.0497975439),
    (6, 4, 1, 0.0597077358),
    (6, 4, 50, 0.1297801385),
    (10, 2, 1, 0.0591889870),
    (10, 3, 1, 0.0791833242),
    (10, 4, 1, 0.0991798746),
    (10, 4, 10, 0.1563973070),
    (10, 4, 50, 0.2146233240),
    (15, 3, 1, 0.118142479),
    (15, 4, 1, 0.1481303601),
    (15, 7, 1, 0.2381117664),
]
OUTPUTS = [(6, 4, 1, 0.97564227), (6, 4, 50, 0.94573193), (10, 3, 1, 0.95915724), (10, 4, 1, 0.95898207)]
OUTPUTS += [(10, 4, 10, 0.93395111), (10, 4, 50, 0.90727186), (15, 4, 1, 0.93763649), (15, 7, 1, 0.93699908)]
RATIOS = {
    3: (1.07456993, 1.05610372, 1.04442541, 1.03667520, 1.03119937, 1.02713565, 1.02400379, 1.02151769),
    4: (1.05922384, 0.96326772, 0.90135515, 0.85689215, 0.82271584, 0.79522245, 0.77237686, 0.75292932),
    5: (1.04911506, 0.90595640, 0.81703681, 0.75471295, 0.70770893, 0.67049548, 0.64000158, 0.61436494),
}


def last_digit(value: float) -> float:
    return 0.51 * 10.0 ** -len(str(value).partition(".")[2])


def test_value_of_three_classes():
    assert srg_loss(DufmProblem(3, 1, 4, 4e-3, 4e-3)) == printed("0.0316953")


@pytest.mark.parametrize(("classes", "depth", "samples", "value"), GOLDEN)
def test_values_of_srg(classes, depth, samples, value):
    assert srg_loss(DufmProblem(classes, samples, depth, 4e-3, 4e-3)) == pytest.approx(value, rel=0, abs=5.1e-11)


@pytest.mark.parametrize(("classes", "depth", "samples", "value"), COLLAPSED)
def test_values_of_the_collapsed_solution(classes, depth, samples, value):
    found = collapsed_optimum(DufmProblem(classes, samples, depth, 4e-3, 4e-3))
    assert found.loss == pytest.approx(value, rel=0, abs=max(5.1e-11, last_digit(value)))


@pytest.mark.parametrize(("classes", "depth", "samples", "output"), OUTPUTS)
def test_outputs_of_the_collapsed_solution(classes, depth, samples, output):
    found = collapsed_optimum(DufmProblem(classes, samples, depth, 4e-3, 4e-3))
    assert found.output == pytest.approx(output, rel=0, abs=5.1e-9)


def test_values_at_the_decays_of_the_papers_real_networks():
    problem = DufmProblem(10, 5000, 4, 5e-3, 5e-6)
    assert collapsed_optimum(problem).loss == pytest.approx(0.1699795581, rel=0, abs=5.1e-11)
    assert srg_loss(problem) == pytest.approx(0.1534423150, rel=0, abs=5.1e-11)


@pytest.mark.parametrize("depth", RATIOS)
def test_limit_ratios(depth):
    for vertices, ratio in zip(range(3, 11), RATIOS[depth], strict=True):
        assert srg_limit_ratio(vertices, depth) == pytest.approx(ratio, rel=0, abs=5.1e-9)


@pytest.mark.parametrize(("classes", "depth"), [(10, 3), (10, 4), (21, 6), (6, 5)])
def test_the_ratio_is_that_of_the_losses_at_tiny_decays_and_tells_which_is_lower(classes, depth):
    ratio = srg_limit_ratio(srg.vertices(classes), depth)
    tiny = DufmProblem(classes, 3, depth, 1e-9, 1e-9)
    assert srg_loss(tiny) / collapsed_optimum(tiny).loss == pytest.approx(ratio, rel=1e-6)
    large = DufmProblem(classes, 3, depth, 2e-3, 2e-3)
    assert (srg_loss(large) < collapsed_optimum(large).loss) == (ratio < 1)


def class_means(problem: Problem) -> list[torch.Tensor]:
    """Class means H_1..H_{L+1} (units, K) of SRG, before ReLU."""
    state = named(references(problem), "srg")
    point = state.construct(state.widths, torch.Generator().manual_seed(0))
    means = [point.features[:: problem.samples_per_class].T]
    for layer, weight in enumerate(point.weights):
        means.append(weight @ (means[-1].clamp(min=0) if layer else means[-1]))
    return means


@pytest.mark.parametrize("vertices", [3, 4, 5, 6])
def test_class_means_are_edges_of_a_graph_and_their_overlaps(vertices):
    classes = vertices * (vertices - 1) // 2
    means = class_means(Problem("mse", "relu", (2,) * classes, 4, 1e-3, 1e-3))
    edges = means[2] / means[2].max()
    edges = edges.masked_fill(edges.abs() < 1e-12, 0)
    assert ((edges > 0).sum(dim=1) == vertices - 1).all() and ((edges > 0).sum(dim=0) == 2).all()
    overlaps = edges.T @ edges
    last = means[3] / means[3].max()
    order = last.argmax(dim=1)
    torch.testing.assert_close(last, (overlaps - 1)[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 7, 9, 11, 14])
def test_only_triangular_numbers_of_classes_have_srg(classes):
    with pytest.raises(ValueError, match=rf"num_classes is {classes}, must be r\(r-1\)/2 for SRG"):
        srg.vertices(classes)
    if classes > 1:
        problem = Problem("mse", "relu", (1,) * classes, 4, 1e-3, 1e-3)
        assert "SRG" not in [state.name for state in references(problem)]


def test_fewer_than_three_layers_have_no_srg():
    with pytest.raises(ValueError, match=r"^depth is 2, must be at least 3"):
        srg_loss(DufmProblem(10, 1, 2, 1e-3, 1e-3))


def test_where_srg_does_not_exist_zero_is_what_is_left():
    assert srg_loss(DufmProblem(6, 1, 4, 1.0, 1.0)) == 0.5
    assert math.isclose(srg_loss(DufmProblem(6, 1, 4, 1e-3, 1e-3)), srg_loss(DufmProblem(6, 8, 4, 1e-3, 1.25e-4)))


def test_docstring_examples_hold():
    assert doctest.testmod(srg).attempted > 0 and doctest.testmod(srg).failed == 0
