"""What is set before a program of ours does anything else, and what it does not depend on."""

import os
import subprocess
import sys

import pytest

from pipeline.runtime.startup import before_torch

VARIABLES = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
DRAW = "from pipeline.runtime.startup import begin; begin(); import sys; from pathlib import Path; "
DRAW += "from pipeline.views.figures import save_figure; assert 'matplotlib' not in sys.modules; "
DRAW += "from matplotlib.figure import Figure; save_figure(Figure(), Path(), 'x'); "
DRAW += "import matplotlib; print(matplotlib.get_backend())"


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "Qt4Agg", "TkAgg", "", "none", None])
def test_files_are_drawn_with_agg_whatever_the_environment_says(backend, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment |= {} if backend is None else {"MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", DRAW], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "agg" and done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").exists()


def test_the_modules_of_a_run_do_not_load_matplotlib():
    code = "import sys, pipeline.runs.execution, pipeline.views.sweep; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_who_says_how_threads_wait_is_not_told_for_how_long(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    before_torch()
    assert "GOMP_SPINCOUNT" not in os.environ
