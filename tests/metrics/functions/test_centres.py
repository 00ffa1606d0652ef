"""Several centres per class: golden values."""

import pytest
import torch
from golden import H as ROWS
from golden import K
from golden import Y as LABELS

from pipeline.metrics import centre_alignment, centre_decisions

_CLASS, _CENTRE, _COLUMN = torch.meshgrid(*(torch.arange(float(n)).double() for n in (K, 4, 4)), indexing="ij")


def centres(count: int) -> torch.Tensor:
    """c counts classes, j centres, k columns: unit of cos(1 + .8c + 1.7j + .9k + .5ck)."""
    found = torch.cos(1 + 0.8 * _CLASS + 1.7 * _CENTRE + 0.9 * _COLUMN + 0.5 * _CLASS * _COLUMN)[:, :count]
    return found / found.norm(dim=-1, keepdim=True)


def test_golden_values() -> None:
    assert centres(2)[0, 0].tolist() == pytest.approx(
        [0.381717631436, -0.228400520210, -0.665669711678, -0.599173336500], rel=1e-9
    )
    mean, std = centre_alignment(ROWS, LABELS, centres(2))
    assert (float(mean), float(std)) == pytest.approx((1.102176375546, 0.347478582015), rel=1e-9)
    assert int((centre_decisions(ROWS, centres(2)) == LABELS).sum()) == 7


def test_rows_along_the_sum_of_their_centres_are_collapsed() -> None:
    several = [centres(4)[0], centres(2)[1], centres(1)[2]]  # more of them for smaller classes
    rows = torch.stack([own.sum(0) for own in several])[LABELS] * torch.arange(1.0, 13)[:, None]
    mean, std = centre_alignment(rows, LABELS, several)
    assert abs(float(mean)) < 1e-12 and float(std) < 1e-12


def test_bad_centres_are_told() -> None:
    with pytest.raises(ValueError, match="centres must be of 4 features each"):
        centre_alignment(ROWS, LABELS, centres(2)[..., :3])
