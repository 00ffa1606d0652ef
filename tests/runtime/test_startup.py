"""What has to stand in the environment before PyTorch is imported."""

import os

from pipeline.runtime.startup import before_torch

VARIABLES = {"OMP_WAIT_POLICY": "PASSIVE", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def test_what_is_not_set_is_set(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    before_torch()
    assert {name: os.environ[name] for name in VARIABLES} == VARIABLES


def test_what_the_user_has_set_stays(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "own")
    before_torch()
    assert {os.environ[name] for name in VARIABLES} == {"own"}
