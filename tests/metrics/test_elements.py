"""Golden values of active elements, from rows and from maps before they are pooled."""

import pytest
import torch
from golden import H, K, Y
from torch import nn

from pipeline.metrics import layer_metrics, undefined_reasons
from pipeline.metrics.elements import active_share, dead_share, histogram, nan_entries, unit_rate
from pipeline.metrics.engine.unit_counts import unit_counts
from pipeline.networks.taps import Tap, Taps

B, T, U = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), torch.arange(6.0), indexing="ij")
A = (torch.sin(1 + B + 2 * T + 3 * U + B * T * U) - 2.0 * (U == 5)).clamp(min=0).double()
"""Activations (3 samples, 4 positions, 6 units)."""


def test_golden_values_of_positions_as_rows() -> None:
    found = layer_metrics(A.reshape(12, 6), torch.arange(12) % 3, 3, families=("elements",))
    active = torch.tensor([3, 3, 2, 3, 3, 2, 2, 5, 3, 2, 4, 3], dtype=torch.float64)
    expected = {
        "active_share": 35 / 72,
        "dead_share": 1 / 6,
        "always_share": 0.0,
        "rate_top10": 9 / 35,
        "active_per_input_mean": 35 / 12,
        "active_per_input_std": float(active.std(correction=0)),
        "nan_entries": 0.0,
    }
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected, rel=1e-9)


def test_golden_rates_and_histogram() -> None:
    counts = unit_counts(A.reshape(12, 6))
    assert (12 * unit_rate(counts)).tolist() == [8, 4, 9, 5, 9, 0]
    found = histogram(counts)
    assert found.sum() == 12 and found.nonzero().squeeze(1).tolist() == [int(64 * n / 6) for n in (2, 3, 4, 5)]


def test_golden_value_of_rows_after_a_relu() -> None:
    found = layer_metrics(torch.relu(H), Y, K, families=("elements",))
    assert float(found["active_share"]) == pytest.approx(29 / 48, rel=1e-12)


@pytest.mark.parametrize("padded", [False, True])
def test_maps_and_tokens_are_counted_before_they_are_averaged(padded: bool) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.ReLU()

        def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
            return self.act(x).mean(1)

    found: dict = {}
    mask = torch.ones(3, 4)
    if padded:
        mask[0, 2:] = 0
    with Taps(Tokens(), {"a": Tap("act", read="nlc+mean")}, found.__setitem__, units=True) as taps:
        taps._module(A.float(), attention_mask=mask)
    counts, inside = found["a"].units.sum(0), A[mask.bool()]
    assert found["a"].values.shape == (3, 6)
    assert float(active_share(counts)) == pytest.approx(float((inside != 0).double().mean()))
    assert float(dead_share(counts)) == pytest.approx(float((inside == 0).all(0).double().mean()))


def test_minus_zero_is_zero_and_nan_is_counted_apart() -> None:
    rows = torch.tensor([[0.0, -0.0, 1.0], [float("nan"), 2.0, 0.0]], dtype=torch.float64)
    counts = unit_counts(rows)
    assert float(active_share(counts)) == pytest.approx(2 / 6) and float(nan_entries(counts)) == 1


def test_units_that_never_fire_have_no_most_active_ones() -> None:
    rows = torch.zeros(4, 3, dtype=torch.float64)
    told = undefined_reasons(rows, torch.arange(4) % 2, 2, families=("elements",))
    assert told == {"rate_top10": "no unit is ever active"}
