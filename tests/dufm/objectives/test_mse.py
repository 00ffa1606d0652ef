"""Mean squared error: its formula, and where the theorem promises what."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.dufm.objectives import load_objective
from pipeline.dufm.verdict import promises

MSE = load_objective("mse")


def test_it_is_half_the_squared_error_per_sample():
    outputs = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0, 0]]
    expected = [F.mse_loss(rows, targets, reduction="sum") / 10 for rows in outputs]
    torch.testing.assert_close(MSE.value(outputs, targets), torch.stack(expected), rtol=1e-14, atol=0)


def test_the_theorem_promises_exactly_the_places_it_names():
    # Súkeník et al. 2023: DNC1 everywhere; DNC2 of sigma(H_l), l >= 2, and of H_l, l >= 3; DNC3 of W_l, l >= 2.
    places = [(1, "pre"), (2, "pre"), (2, "post"), (3, "pre"), (3, "post")]
    promised = {m: [promises(MSE, *place, m, depth=3) for place in places] for m in ("dnc1", "dnc2", "dnc3")}
    assert promised["dnc1"] == [True] * 5
    assert promised["dnc2"] == [False, False, True, True, True]
    assert promised["dnc3"] == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ((2, 2, "relu"), None),
        ((3, 3, "relu"), "the theorem is about two classes, here are 3"),
        (
            (3, 4, "relu"),
            "the theorem is about two classes, here are 3, "
            "and from depth 4 on the collapsed solution is not the optimum",
        ),
        ((2, 1, "relu"), "the theorem is about depth 2 and more"),
        ((2, 3, "linear"), "the theorem is about ReLU heads"),
    ],
)
def test_the_theorem_covers_what_it_is_about(head, reason):
    assert MSE.not_covered(*head) == reason
