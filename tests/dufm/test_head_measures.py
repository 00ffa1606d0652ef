"""Shapes of heads at points that theory builds: ranks of the collapsed point, of a code on two units, its curvature."""

import pytest
import torch

from pipeline.dufm.head_measures import head_curvature, head_regression, head_shape
from pipeline.theory import DufmProblem, collapsed_optimum, construct_optimum

PROBLEM = DufmProblem(num_classes=3, samples_per_class=4, depth=3, weight_decay=(1e-2, 2e-2, 5e-3), feature_decay=3e-2)


def point() -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    found = construct_optimum(PROBLEM, (9, 9, 9), torch.Generator().manual_seed(0))
    return found.features, list(found.weights), found.labels


def test_the_collapsed_point_is_a_frame_of_rank_k_everywhere() -> None:
    features, weights, labels = point()
    shape = head_shape(features, weights, labels, "relu")
    assert [(it.layer, it.tap) for it in shape] == [
        (1, "pre"),
        (2, "pre"),
        (2, "post"),
        (3, "pre"),
        (3, "post"),
        (4, "pre"),
    ]
    for place in shape:
        assert float(place.spectrum.rank) == 3 and place.spectrum.rtol == 1e-3, place
        assert place.spectrum.values.flatten().tolist() == pytest.approx([float(place.spectrum.values.max())] * 3)
        assert float(place.gram.frame) < 1e-9
    outputs = shape[-1].spectrum.values.flatten().tolist()
    assert outputs == pytest.approx([collapsed_optimum(PROBLEM).output] * 3)


def test_ranks_before_and_after_the_activation_differ_for_a_code_on_two_units() -> None:
    """Section 2 of 2405.14468's follow-up: three classes on two units, a last layer that tells them apart by ReLU."""
    code = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.9]]).double()
    last = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.5, 0.5]]).double()
    shape = head_shape(code, [torch.eye(2).double(), last, torch.eye(3).double()], torch.arange(3), rtol=1e-2)
    assert [float(it.spectrum.rank) for it in shape] == [2, 2, 2, 2, 3, 3]


def test_curvature_of_members_is_that_of_each_and_golden_at_collapse() -> None:
    features, weights, labels = point()
    off = [weight + 0.1 * torch.sin(3 * weight + 1) for weight in weights]
    both = [torch.stack(pair) for pair in zip(weights, off, strict=True)]
    found = head_curvature(features, both, labels, "linear")
    assert found.largest.shape == (2, 3)
    assert found.largest[0].tolist() == pytest.approx([0.163868422, 0.327736845, 0.081934211], rel=1e-6)
    for values in (found.ratio, found.hessian, found.gradient):
        assert values[0].tolist() == pytest.approx([1, 1, 1], rel=1e-6)
    alone = head_curvature(features, off, labels, "linear")
    for name, values in found._asdict().items():
        torch.testing.assert_close(values[1:], getattr(alone, name), rtol=1e-9, atol=1e-12)
    assert float(found.ratio[1].max()) > 1.01


def test_a_head_at_the_optimum_of_regression_is_collapsed() -> None:
    """One layer with a bias, decays .02 and .05: W W^T = sqrt(lambda_H / lambda_W)(S - sqrt(c) I), c their product."""
    sample = torch.arange(1, 61).double()
    targets = torch.stack([sample.sin(), 0.5 * (1.7 * sample).cos(), 0.2 * (0.3 * sample**2).sin()], 1) + 1
    spread = targets - targets.mean(0)
    values, vectors = torch.linalg.eigh(spread.T @ spread / 60)
    weight = vectors * ((values.sqrt() - 0.001**0.5) * 2.5**0.5).sqrt() @ vectors.T
    features = 0.4**0.5 * spread @ (vectors / values.sqrt() @ vectors.T) @ weight
    both = torch.stack([weight, weight + 0.3 * torch.sin(9 * weight)])
    found = head_regression(features, [both], targets, bias=targets.mean(0).expand(2, 3))
    assert found.collapse.nrc3[0] < 1e-12 and float(found.collapse.gamma[0]) == pytest.approx(0.001, rel=1e-6)
    assert found.collapse.nrc3[1] > 1e-3 and found.collapse.nrc1.tolist() == pytest.approx([0, 0], abs=1e-12)
    # The residual is white, of variance c for each target (here the sum over three of them).
    assert float(found.r_squared[0]) == pytest.approx(1 - 3 * 0.001 / float(values.sum()))
    assert found.explained_variance.shape == (2, 5) and found.explained_variance[:, 3:].max() == 0
    deep = head_regression(features, [both, torch.stack([torch.eye(3)] * 2).double()], targets, "linear")
    assert deep.collapse.nrc2.tolist() == pytest.approx([0, 0], abs=1e-12)
