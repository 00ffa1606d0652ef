"""The launcher is an optional extra: without it, only those who ask for it hear of it."""

import subprocess
import sys

from pipeline.cli.app import EXIT_BAD_CONFIG

WITHOUT_THE_EXTRA = """
import sys, types
sys.modules["hydra_plugins"] = types.ModuleType("hydra_plugins")  # where Hydra looks for what is installed
sys.modules["hydra_plugins"].__path__ = []
from pipeline.cli.app import main
main()
"""


def without_the_extra(*arguments, cwd):
    command = [sys.executable, "-c", WITHOUT_THE_EXTRA, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_asking_for_slurm_without_its_extra_names_the_extra(tmp_path):
    done = without_the_extra("--multirun", "hydra/launcher=slurm", "seed=0,1", cwd=tmp_path)
    assert done.returncode == EXIT_BAD_CONFIG
    (sentence,) = done.stderr.splitlines()
    assert "hydra/launcher" in sentence and "'.[slurm]'" in sentence
    assert list(tmp_path.iterdir()) == []


def test_other_commands_do_not_need_the_extra(tmp_path):
    done = without_the_extra("--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0 and "num_nodes: 1" in done.stdout
