"""Results made by hand, in folders that a test finds empty."""

import pytest
from study_results import descents_in, networks_in


@pytest.fixture
def made(tmp_path):
    """Makes results of the DUFM (`handmade.descents_in`)."""
    return descents_in(tmp_path)


@pytest.fixture
def network(tmp_path):
    """Makes results of networks (`handmade.networks_in`)."""
    return networks_in(tmp_path)
