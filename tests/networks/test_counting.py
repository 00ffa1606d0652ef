"""Units that are not zero are counted exactly, whatever the layout, the size and who counts."""

import math

import pytest
import torch

from pipeline.networks import counting
from pipeline.networks.counting import nonzero


@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (2, 33, 1, 1), (5, 1, 4, 4), (1, 17), (2, 3, 70, 333), (0, 4, 2, 2)])
@pytest.mark.parametrize("layout", ["as it is", "channels last", "batch second", "with gaps"])
@pytest.mark.parametrize("compiled", [True, False])
def test_they_are_those_of_a_sum_of_booleans(shape, layout, compiled, monkeypatch):
    monkeypatch.setattr(counting, "WORTH", 0)
    if not compiled:
        monkeypatch.setattr(counting, "library", lambda: None)
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu()
    if value.numel() > 1:
        value.view(-1)[:2] = torch.tensor([-0.0, math.nan])
    expected = (value != 0).flatten(1).sum(1).double() if len(value) else torch.zeros(0, dtype=torch.float64)
    batch = 0
    if layout == "channels last" and value.ndim == 4:
        value = value.contiguous(memory_format=torch.channels_last)
    elif layout == "batch second":
        value, batch = value.transpose(0, 1), 1
    elif layout == "with gaps":
        value = torch.stack([value, torch.ones_like(value)], dim=-1)[..., 0]
    assert torch.equal(nonzero(value, batch), expected)
