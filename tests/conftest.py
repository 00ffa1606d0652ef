"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real MNIST and CIFAR-10 files, given by the environment variable DATA_ROOT."""
    root = os.environ.get("DATA_ROOT")
    if not root:
        pytest.skip("DATA_ROOT is not set: no real MNIST and CIFAR-10 files")
    return Path(root)
