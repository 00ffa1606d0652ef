"""The check of a real GPU works, as far as can be seen without one."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from commands import forked_python

SCRIPT = Path(__file__).parents[2] / "scripts/gpu_check"


def checked(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    own = os.environ | {"PYTHON": str(forked_python()), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([SCRIPT, *arguments], env=own, capture_output=True, text=True, timeout=900)


def test_all_of_it_runs_small_without_a_gpu_and_leaves_a_table(tmp_path):
    done = checked(str(tmp_path / "table.md"), TINY="1")
    assert done.returncode == 0, done.stdout + done.stderr
    head, _, *rows = (tmp_path / "table.md").read_text().splitlines()[2:]
    assert head == "| what | case | found |"
    parts = ("tests marked gpu", "run", "descent", "measuring", "features", "training")
    assert all(any(row.startswith(f"| {part}") for row in rows) for part in parts), rows
    assert not any("FAILED" in row for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_how_it_runs_small():
    done = checked()
    assert done.returncode == 2 and "TINY=1 scripts/gpu_check runs without one" in done.stderr
