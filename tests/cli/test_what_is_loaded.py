"""What is imported before there is anything to do with it: counted in modules, not in seconds."""

import gc
import json
import os
import subprocess
import sys

import pytest

from pipeline.runtime.startup import RARELY

TORCH_FREE = {
    "--version": ["--version"],
    "--help": ["--help"],
    "Tab": ["-sc", "query=bash"],
    "an unknown key": ["head.depht=3"],
    "a value out of range": ["descent.lr=-1"],
    "an unknown choice": ["data=mnits"],
    "list": ["list"],
}
"""What of the command needs no PyTorch."""
RUN = ["protocol=dufm", "descent.steps=2", "descent.seeds=1", "head.depth=2", "head.width=3", "logger=none"]
RUN += ["protocol.samples_per_class=2", "protocol.num_features=3", "record.figures=false", "hydra.run.dir=run"]
SCRIPT = """
import contextlib, gc, io, json, os, sys
import pipeline.__main__ as command

seen, told = set(sys.modules), []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["dnc", *arguments]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            command.main()
            code = 0
        except SystemExit as end:
            code = end.code
    told.append([code, gc.get_threshold(), sorted({name.partition(".")[0] for name in set(sys.modules) - seen})])
    seen = set(sys.modules)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What each command line, after those before it, imports: its exit code, what the collector of cycles was set to
    when it ended, and the libraries."""
    lines = {**TORCH_FREE, "a run": RUN}
    environment = os.environ | {"COMP_LINE": "dnc head.", "COMP_POINT": "9", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(list(lines.values()))],
        cwd=tmp_path_factory.mktemp("startup"),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(zip(lines, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("asked", TORCH_FREE)
def test_what_needs_no_tensors_imports_no_library_of_numbers(imported, asked):
    code, collector, libraries = imported[asked]
    assert tuple(collector) == RARELY  # what is loaded and composed is no garbage
    assert code == (2 if asked.startswith(("an ", "a ")) else 0)
    heavy = {"torch", "numpy", "scipy", "pandas", "matplotlib", "wandb", "timm"} & set(libraries)
    heavy |= {"rich"} & set(libraries) if asked != "list" else set()  # only tables are drawn with it
    assert heavy == set(), "imported by the schema: what settings and their choices are made of must not need PyTorch"


def test_a_run_without_figures_images_and_tracker_imports_nothing_for_them(imported):
    code, collector, libraries = imported["a run"]
    assert code == 0 and "torch" in libraries
    assert tuple(collector) == gc.get_threshold() != RARELY  # Python's own, or tensors in cycles would stay
    heavy = {"matplotlib", "pandas", "wandb", "torchvision", "timm", "scipy", "torchmetrics", "pytorch_lightning"}
    assert heavy.isdisjoint(libraries)


def test_figures_of_runs_that_say_what_they_show_load_no_pytorch():
    script = "import sys, pipeline.views.sweep, pipeline.views.printing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert "torch" not in done.stdout.split()


def test_importing_the_tracker_imports_pytorch_and_little_else():
    script = "import sys; from pipeline import CollapseTracker, Taps; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    libraries = {name.partition(".")[0] for name in done.stdout.split()}
    assert "torch" in libraries
    assert {"torchmetrics", "torchvision", "pandas", "matplotlib", "wandb", "timm", "hydra"}.isdisjoint(libraries)
