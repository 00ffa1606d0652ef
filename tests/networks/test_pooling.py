"""Means over positions are those of float64 to float32 rounding, and units that are not zero are counted exactly,
whatever the layout, the size and who pools."""

import math
import platform

import pytest
import torch

from pipeline.networks import pooling
from pipeline.networks.pooling import nonzero, pooled

# Samples, channels, positions: as the kernel groups columns, and no multiples of it.
SHAPES = [(3, 16, 32, 32), (2, 64, 8, 8), (5, 96, 1, 7), (4, 57, 3, 5), (1, 5, 17, 31), (2, 1, 4, 4), (3, 8, 1, 1)]


def _maps(shape: tuple[int, ...], layout: str, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, int, int]:
    """An activation, and its axes of samples and channels."""
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu().to(dtype)
    if layout == "tokens":
        return value.flatten(2).mT.contiguous(), 0, 2
    if layout == "tokens first":
        return value.flatten(2).permute(2, 0, 1).contiguous(), 1, 2
    if layout == "with gaps":
        return torch.stack([value, torch.ones_like(value)], dim=-1)[..., 0], 0, 1
    form = torch.channels_last if layout == "channels last" else torch.contiguous_format
    return value.contiguous(memory_format=form), 0, 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["as it is", "channels last", "tokens", "tokens first", "with gaps"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_means_and_shares_of_units_are_those_of_float64(shape, layout, dtype, monkeypatch):
    monkeypatch.setattr(pooling, "WORTH", 0)
    value, batch, channel = _maps(shape, layout, dtype)
    means, active = pooled(value, batch, channel)
    exact = value.double().movedim((batch, channel), (0, 1)).flatten(2)
    expected = (exact.mean(2), (exact != 0).sum((1, 2)).double() / exact.shape[2])
    assert means.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(means.double(), expected[0], rtol=8 * torch.finfo(means.dtype).eps, atol=0)
    torch.testing.assert_close(active, expected[1], rtol=1e-15, atol=0)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="PyTorch's vectors are of another length")
@pytest.mark.parametrize("shape", [*SHAPES, (2, 130, 70, 65)])
@pytest.mark.parametrize("layout", ["channels last", "tokens"])
def test_means_are_the_same_bits_by_the_kernel_and_by_pytorch(shape, layout, monkeypatch):
    monkeypatch.setattr(pooling, "WORTH", 0)
    value, batch, channel = _maps(shape, layout)
    by_kernel = pooled(value, batch, channel)
    monkeypatch.setattr(pooling, "library", lambda: None)
    assert all(map(torch.equal, by_kernel, pooled(value, batch, channel)))


def test_what_is_not_finite_stays_in_its_channel(monkeypatch):
    monkeypatch.setattr(pooling, "WORTH", 0)
    value, batch, channel = _maps((2, 40, 3, 3), "channels last")
    value[0, 3, 1, 1], value[1, 39, 2, 0] = math.inf, math.nan
    means, active = pooled(value, batch, channel)
    assert means[0, 3] == math.inf and means[1, 39].isnan() and means.isfinite().sum() == means.numel() - 2
    assert torch.equal(active, (value != 0).sum((1, 2, 3)) / torch.tensor(9, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (2, 33, 1, 1), (5, 1, 4, 4), (1, 17), (2, 3, 70, 333), (0, 4, 2, 2)])
@pytest.mark.parametrize("layout", ["as it is", "channels last", "batch second", "with gaps"])
@pytest.mark.parametrize("compiled", [True, False])
def test_they_are_those_of_a_sum_of_booleans(shape, layout, compiled, monkeypatch):
    monkeypatch.setattr(pooling, "WORTH", 0)
    if not compiled:
        monkeypatch.setattr(pooling, "library", lambda: None)
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
