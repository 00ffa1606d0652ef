"""The package with files added to it, in a folder of its own: what an addition needs is seen by adding it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from commands import commands

REPO = Path(__file__).parents[2]


class Overlay:
    """A copy of ``pipeline/`` and ``conf/`` in a folder, with new files in it.

    Raises AssertionError if one of the files is there already: an addition changes nothing.
    """

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        self.folder = folder
        for part in ("pipeline", "conf"):
            # With what is compiled already, which holds for copies too; what is just being compiled is not there yet.
            shutil.copytree(REPO / part, folder / part, ignore=shutil.ignore_patterns("*.pyc.*"))
        for name, text in files.items():
            assert not (folder / name).exists(), name
            (folder / name).write_text(text)

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python (``-c`` or ``-m``) on the copy, in its folder; with `check`, a failure of the process fails the
        test. Libraries are loaded already, and seem imported."""
        environment = os.environ | {"PYTHONPATH": str(self.folder)}  # of processes that this one starts
        done = commands().run(*arguments, folder=self.folder, package=self.folder, environment=environment)
        assert not check or done.code == 0, done.err
        return subprocess.CompletedProcess([sys.executable, *arguments], done.code, done.out, done.err)

    def dnc(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        return self.python("-m", "pipeline", *arguments, check=check)
