"""What tests with real processes share."""

import pytest
from disturbance import Stage


@pytest.fixture(scope="session")
def here(tmp_path_factory):
    """Where runs are started that are disturbed while they go on."""
    return Stage(tmp_path_factory.mktemp("here"))
