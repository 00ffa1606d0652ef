"""The package with files added to it, in a folder of its own: what an addition needs is seen by adding it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPO = Path(__file__).parents[2]


class Overlay:
    """A copy of ``pipeline/`` and ``conf/`` in a folder, with new files in it.

    Raises AssertionError if one of the files is there already: an addition changes nothing.
    """

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        for part in ("pipeline", "conf"):
            shutil.copytree(REPO / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in files.items():
            assert not (folder / name).exists(), name
            (folder / name).write_text(text)

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python on the copy, in its folder; with `check`, a failure of the process fails the test."""
        environment = os.environ | {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def dnc(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        return self.python("-m", "pipeline", *arguments, check=check)
