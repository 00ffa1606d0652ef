"""What is put into eval mode for a while comes back as it was, part by part."""

import pytest
from torch import nn

from pipeline.runtime.modes import evaluating, modes_kept


@pytest.fixture
def network():
    """A network in training, one part of which is not: a frozen batch norm, say."""
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()))
    network[1][0].eval()
    return network


def modes(network: nn.Module) -> list[bool]:
    return [part.training for part in network.modules()]


def test_within_all_parts_are_in_eval_mode_and_afterwards_as_before(network):
    before = modes(network)
    with evaluating(network):
        assert not any(modes(network))
    assert modes(network) == before and len(set(before)) == 2


def test_modes_come_back_after_an_error_too(network):
    before = modes(network)
    with pytest.raises(RuntimeError), modes_kept(network):
        network.eval()
        raise RuntimeError
    assert modes(network) == before
