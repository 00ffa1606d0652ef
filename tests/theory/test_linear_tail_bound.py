"""The certificate of linear tails: the specification's number, and that no weights exceed it."""

import math

import pytest
import torch
from theory_goldens import printed

from pipeline.theory import within_bound


def specified() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """H, W1, W2 and labels of the input T."""

    def grid(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(columns, dtype=torch.float64)

    labels = torch.tensor([0] * 6 + [1] * 4 + [2] * 2)
    i, j = grid(12, 4)
    features = (0.7 * i + 1.3 * j + 0.45 * i * j).sin() + 1.5 * torch.eye(4, dtype=torch.float64)[labels]
    a, j = grid(5, 4)
    first = (1.1 * a + 0.6 * j + 0.2 * a * j).sin()
    k, a = grid(3, 5)
    return features, first, (0.5 * k + 0.9 * a + 0.3 * k * a).cos(), labels


def variability(rows: torch.Tensor, labels: torch.Tensor) -> float:
    """tr Sigma_W."""
    means = torch.stack([rows[labels == k].mean(dim=0) for k in range(int(labels.max()) + 1)])
    return float((rows - means[labels]).square().sum() / len(rows))


def test_value_of_the_specification():
    features, first, last, labels = specified()
    found = within_bound(features, first, last, torch.eye(3, dtype=torch.float64)[labels])
    assert found == pytest.approx(188.711531425741, rel=1e-12)
    assert variability(features @ first.T, labels) == printed("3.342726791408")


def test_no_weights_exceed_it():
    generator = torch.Generator().manual_seed(0)
    for trial in range(300):
        classes, dim, width = 2 + trial % 3, 3 + trial % 4, 5
        labels = torch.arange(classes).repeat(4)
        features = torch.randn(len(labels), dim, dtype=torch.float64, generator=generator)
        first = torch.randn(width, dim, dtype=torch.float64, generator=generator)
        last = torch.randn(classes, width, dtype=torch.float64, generator=generator)
        bound = within_bound(features, first, last, torch.eye(classes, dtype=torch.float64)[labels])
        assert variability(features @ first.T, labels) <= bound * (1 + 1e-12)


def test_it_vanishes_at_a_balanced_collapsed_network():
    labels = torch.arange(3).repeat_interleave(2)
    eye = torch.eye(3, dtype=torch.float64)
    assert within_bound(eye[labels], eye, eye, eye[labels]) == pytest.approx(0, abs=1e-20)


def test_a_last_layer_of_low_rank_bounds_nothing():
    rows, eye = torch.ones(4, 3), torch.eye(3)
    assert within_bound(rows, eye, torch.zeros(2, 3), torch.ones(4, 2)) == math.inf
    assert within_bound(rows, eye[:1], torch.ones(2, 1), torch.ones(4, 2)) == math.inf


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((torch.ones(4, 2), None, None, None), "^previous_weight has 3 columns, must be 2"),
        ((None, None, torch.ones(2, 4), None), "^last_weight has 4 columns, must be 3"),
        ((None, None, None, torch.ones(4, 3)), "^targets has"),
        ((torch.ones(4), None, None, None), "^features has the shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, said):
    given = (torch.ones(4, 3), torch.eye(3), torch.ones(2, 3), torch.ones(4, 2))
    with pytest.raises(ValueError, match=said):
        within_bound(*(own if new is None else new for own, new in zip(given, change, strict=True)))
