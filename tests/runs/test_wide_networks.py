"""Networks of two layers: descent is that of autograd, at the start and after it."""

import pytest
import torch

from pipeline.runs.wide_networks import STARTS, hidden_features

ROWS = torch.randn(9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGETS = torch.tensor([-1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("start", list(STARTS))
def test_steps_are_those_of_sgd_with_decay_on_the_mean_of_squares(activation, start):
    scale, decay = STARTS[start]
    settings = {"width": 7, "start": STARTS[start], "lr": 0.05}
    before, after = hidden_features(ROWS, TARGETS, activation, torch.Generator().manual_seed(3), epochs=12, **settings)
    again = torch.Generator().manual_seed(3)
    first = torch.randn(7, 4, generator=again, dtype=torch.float64) / 2
    last = torch.randn(7, generator=again, dtype=torch.float64) * scale / 7**0.5
    leaves = [it.requires_grad_() for it in (first, last, torch.zeros(7).double(), torch.zeros(()).double())]
    phi = {"relu": torch.relu, "erf": torch.erf}[activation]
    torch.testing.assert_close(before, phi(ROWS @ first.T).detach(), rtol=1e-14, atol=0)
    optimizer = torch.optim.SGD(leaves, 0.05, weight_decay=decay)
    for _ in range(12):
        optimizer.zero_grad()
        outputs = phi(ROWS @ first.T + leaves[2]) @ last + leaves[3]
        (outputs - TARGETS).square().mean().backward()
        optimizer.step()
    expected = phi(ROWS @ first.T + leaves[2]).detach()
    torch.testing.assert_close(after, expected, rtol=1e-11, atol=1e-13)
    assert not torch.allclose(after, before)
