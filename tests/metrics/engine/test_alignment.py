"""Feature alignment: the best rotation against brute force, and what rotations and spread do to it."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes

from pipeline.metrics import feature_alignment


def draw(*shape, seed=0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 2])


@pytest.mark.parametrize("dim", [2, 3, 8], ids=["d < K", "d = K", "d > K"])
def test_the_best_rotation_is_that_of_the_full_procrustes_problem(dim):
    features, reference = draw(7, dim), draw(3, dim, seed=1)
    found = feature_alignment(features, LABELS, reference)
    target = reference[LABELS]
    rotation, nuclear = orthogonal_procrustes(target.numpy(), features.numpy())
    rotated = torch.from_numpy(target.numpy() @ rotation)
    norms = features.norm() * target.norm()
    assert found.cosine.item() == pytest.approx(((features * target).sum() / norms).item())
    assert found.cosine_rotated.item() == pytest.approx(nuclear / norms.item())
    assert found.distance.item() == pytest.approx(((features - target).norm() / target.norm()).item())
    assert found.distance_rotated.item() == pytest.approx(((features - rotated).norm() / target.norm()).item())


def test_rotated_features_are_the_same_after_the_best_rotation():
    reference = draw(3, 8)
    rotation = torch.linalg.qr(draw(8, 8, seed=2)).Q
    found = feature_alignment(reference[LABELS] @ rotation, LABELS, reference)
    assert found.cosine_rotated.item() == pytest.approx(1) and found.distance_rotated.item() == pytest.approx(
        0, abs=1e-7
    )
    assert found.cosine < 0.9 and found.distance > 0.1


def test_a_scale_changes_the_distance_and_not_the_cosine():
    reference = draw(3, 8)
    found = feature_alignment(3 * reference[LABELS], LABELS, reference)
    assert found.cosine.item() == pytest.approx(1) and found.distance.item() == pytest.approx(2)


def test_spread_within_classes_counts_as_distance():
    reference = draw(3, 8)
    noise = draw(7, 8, seed=3)
    found = feature_alignment(reference[LABELS] + noise, LABELS, reference)
    assert found.distance.item() == pytest.approx((noise.norm() / reference[LABELS].norm()).item())
    assert 0 < found.distance_rotated <= found.distance


@pytest.mark.parametrize(
    ("features", "labels", "reference"),
    [
        (draw(7, 8), LABELS, draw(3, 7)),
        (draw(7, 8), LABELS, torch.zeros(3, 8)),
        (draw(7, 8), LABELS, draw(2, 8)),
        (draw(6, 8), LABELS, draw(3, 8)),
    ],
    ids=["other width", "zero reference", "label out of range", "other count"],
)
def test_malformed_arguments_are_refused(features, labels, reference):
    with pytest.raises(ValueError, match=r"reference|labels"):
        feature_alignment(features, labels, reference)


def test_numbers_are_float64_whatever_comes_in():
    found = feature_alignment(draw(7, 8).float(), LABELS, draw(3, 8).float())
    assert all(value.dtype == torch.float64 and np.isfinite(value.item()) for value in vars(found).values())


def test_features_that_are_zero_have_no_direction():
    found = feature_alignment(torch.zeros(7, 8), LABELS, draw(3, 8))
    assert found.cosine.isnan() and found.cosine_rotated.isnan()
    assert found.distance.item() == found.distance_rotated.item() == 1


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_have_no_alignment(value):
    features = draw(7, 8)
    features[3, 2] = value
    assert all(number.isnan() for number in vars(feature_alignment(features, LABELS, draw(3, 8))).values())
