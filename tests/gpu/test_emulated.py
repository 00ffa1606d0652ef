"""What needs a GPU runs on emulated ones: the tests marked `gpu`, and those of ``emulated_*.py``, in one process."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
REPO = HERE.parents[1]


@pytest.fixture
def runtime(tmp_path) -> Path:
    """The library that stands for CUDA's."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU; scripts/gpu_check and pytest -m gpu run on it")
    if sys.platform != "linux" or torch.version.cuda is None:
        pytest.skip("emulated GPUs need Linux and a PyTorch that is built for CUDA")
    if not compiler:
        pytest.skip("emulated GPUs need a C compiler, cc")
    library = tmp_path / "cuda_runtime.so"
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([compiler, *options, "-o", str(library), str(HERE / "cuda_runtime.c")], check=True)
    return library


def test_all_that_needs_a_gpu_runs_on_an_emulated_one(runtime, tmp_path):
    files = [path for path in (REPO / "tests").rglob("test_*.py") if "@pytest.mark.gpu" in path.read_text()]
    files = [path for path in files if path != Path(__file__)] + sorted(HERE.glob("emulated_[!c]*.py"))
    options = ["-q", "-m", "gpu", "-p", "no:cacheprovider", "-p", "no:xdist", "--basetemp", str(tmp_path / "tests")]
    environment = os.environ | {
        "LD_PRELOAD": str(runtime),
        "EMULATED_GPUS": "2",
        "PYTHONPATH": os.pathsep.join([str(REPO), str(HERE)]),
        "OMP_NUM_THREADS": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    command = [sys.executable, str(HERE / "on_emulated.py"), str(tmp_path), *options, *map(str, files)]
    done = subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 26 and "skipped" not in done.stdout, done.stdout
