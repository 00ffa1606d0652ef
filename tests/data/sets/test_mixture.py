"""Gaussian clouds around means that the settings choose."""

import pytest
import torch

from pipeline.data import DataError, load_images, validate_request
from pipeline.data.sets.mixture import Settings, class_means


def means(kind: str, **settings) -> torch.Tensor:
    return class_means(Settings(means=kind, **settings))


def test_orthogonal_means_have_length_snr_times_std():
    found = means("orthogonal", num_classes=3, dim=4, snr=2.0, std=0.5)
    assert torch.equal(found @ found.T, torch.eye(3).double()) and found.dtype == torch.float64


def test_antipodal_means_come_in_opposite_pairs():
    found = means("antipodal", num_classes=5, dim=3, snr=2.0)
    assert torch.equal(found[0], -found[1]) and torch.equal(found[2], -found[3])
    assert torch.equal(found.norm(dim=1), torch.full((5,), 2.0).double()) and found[0] @ found[2] == 0


def test_means_of_a_shared_axis_are_equal_in_every_coordinate():
    # the data of 2406.02105: means -2 and +2, std 0.5
    found = means("shared_axis", num_classes=2, dim=3, snr=4.0, std=0.5)
    assert found.tolist() == [[-2.0] * 3, [2.0] * 3]
    assert means("shared_axis", num_classes=4, dim=1, snr=3.0).flatten().tolist() == [-3, -1, 1, 3]


def test_each_class_is_its_mean_and_noise_of_that_std():
    data = load_images("mixture", num_classes=3, dim=4, samples_per_class=4000, snr=6.0, std=0.5, test=10)
    assert data.train.labels.bincount().tolist() == [4000] * 3 and data.test.labels.bincount().tolist() == [10] * 3
    for label, mean in enumerate(means("orthogonal", num_classes=3, dim=4, snr=6.0, std=0.5)):
        rows = data.train.images[data.train.labels == label].flatten(1).double()
        torch.testing.assert_close(rows.mean(0), mean, atol=5 * 0.5 / 4000**0.5, rtol=0)
        torch.testing.assert_close(rows.T.cov(), 0.25 * torch.eye(4).double(), atol=0.03, rtol=0)


def test_more_samples_contain_fewer_ones():
    few, many = (load_images("mixture", samples_per_class=count, seed=1).train for count in (5, 300))
    assert torch.equal(few.images[:5], many.images[:5]) and len(many) == 600


def test_without_signal_all_means_are_zero():
    assert not means("orthogonal", snr=0.0).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 5, "dim": 4}, r"data\.dim=4 is too small for data\.num_classes=5 and data\.means=orthogonal"),
        ({"num_classes": 5, "dim": 2, "means": "antipodal"}, r"data\.dim=2 is too small .* allowed: an integer >= 3"),
        ({"means": "simplex"}, r"data\.means=simplex is not known; allowed: orthogonal, antipodal, shared_axis"),
        ({"snr": -1.0}, r"data\.snr=-1\.0 is out of range"),
        ({"std": 0.0}, r"data\.std=0\.0 is out of range"),
        ({"test": 0}, r"data\.test=0 is out of range"),
    ],
)
def test_settings_that_make_no_mixture_are_refused(options, message):
    with pytest.raises(DataError, match=message):
        validate_request("mixture", **options)
