"""Processes of ours run our package, whatever the working directory holds by its name."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import dnc
from recomputation import summary_of

from pipeline.runtime.children import ROOT, module_command, own_package

ASK = "import sys; from pipeline.runtime.children import module_command; sys.path.insert(0, sys.argv[1]); "
ASK += "import subprocess; sys.exit(subprocess.run(module_command('pipeline', '--version')).returncode)"
NETWORK = "import torch, pipeline.networks\nclass Net(torch.nn.Linear):\n    def forward(self, images):\n"
NETWORK += "        return super().forward(images.flatten(1)).relu()\n"


@pytest.fixture(params=["pipeline.py", "pipeline/__init__.py", "pipeline/runtime/__init__.py"])
def shadowed(request, tmp_path) -> Path:
    """A working directory with code by the name of ours."""
    file = tmp_path / request.param
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("raise SystemExit('the code of the user')\n")
    return tmp_path


def test_a_child_runs_our_module_although_another_comes_first_in_the_path(shadowed):
    command = [sys.executable, "-P", "-c", ASK, str(shadowed)]
    done = subprocess.run(command, cwd=shadowed, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("dnc "), done.stderr


def test_a_python_that_a_cluster_starts_finds_our_package(shadowed):
    code = "import pipeline.runtime.errors; print(pipeline.__file__)"
    environment = {"PATH": "/usr/bin:/bin", **own_package()}
    done = subprocess.run([sys.executable, "-c", code], cwd=shadowed, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == f"{ROOT}/pipeline/__init__.py", done.stderr


def test_a_run_of_two_processes_takes_the_network_from_here_and_not_the_package(tmp_path):
    (tmp_path / "pipeline.py").write_text("raise SystemExit('the code of the user')\n")
    (tmp_path / "mine.py").write_text(NETWORK)
    arguments = ["backbone=custom", "backbone._target_=mine.Net", "backbone.kwargs={in_features: 64, out_features: 8}"]
    arguments += ["trainer.devices=2", "data.samples_per_class=20", "backbone.epochs=1", "descent.steps=2"]
    arguments += ["descent.seeds=2", "record.figures=false", "logger=none", "hydra.run.dir=r"]
    dnc(*arguments, cwd=tmp_path)
    assert summary_of(tmp_path / "r")["environment"]["processes"] == 2


def test_a_child_finds_our_modules_and_not_those_of_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "speaker.py").write_text("import sys; print('ours', sys.argv[1:], __name__)")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "speaker.py").write_text("print('theirs')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("ours")  # relative: as it was understood when it was added
    command = module_command("speaker", "a b", "--flag")
    done = subprocess.run(command, cwd=theirs, capture_output=True, text=True, check=True)
    assert done.stdout == "ours ['a b', '--flag'] __main__\n"
    assert command[0] == sys.executable


def test_a_child_can_be_started_where_the_working_directory_is_gone(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, subprocess, sys; from pipeline.runtime.children import module_command; os.rmdir(os.getcwd()); "
    code += "sys.exit(subprocess.run(module_command('pipeline.runtime.errors')).returncode)"
    assert subprocess.run([sys.executable, "-P", "-c", code], cwd=gone).returncode == 0
