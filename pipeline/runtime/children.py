"""Processes that this one starts to run our own code."""

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[2])
"""The folder that holds our package."""


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line of a child that runs one of our modules, as ``python -m`` would.

    Our package is the one this process runs; everything else the child finds where this process finds it. The working
    directory may hold other code by the name of ours, or be gone.
    """
    # `-P` keeps the working directory out; what this process has of it is in its own path already.
    code = f"import runpy, sys; sys.path.insert(0, {ROOT!r}); import pipeline; sys.path[:] = {_search_path()!r}; "
    code += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-P", "-c", code, *arguments]


def own_package() -> dict[str, str]:
    """Environment variables with which Pythons that others start for us (a cluster's jobs) find our package, too."""
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join([ROOT, *_search_path_of_the_user()])}


def _search_path_of_the_user() -> list[str]:
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != ROOT]


def _search_path() -> list[str]:
    """``sys.path`` as it can be read from any folder."""
    return [entry if os.path.isabs(entry) else os.path.abspath(entry) for entry in sys.path]
