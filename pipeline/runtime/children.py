"""Processes that this one starts to run our own code."""

import os
import sys


def module_command(module: str, *arguments: str) -> list[str]:
    """The command line of a child that runs one of our modules, as ``python -m`` would.

    It finds modules where this process finds them, and not in the working directory, which may hold other code by the
    same name or be gone.
    """
    # `-P` keeps the working directory out; what this process has of it is in its own path already.
    code = f"import runpy, sys; sys.path[:] = {_search_path()!r}; "
    code += f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-P", "-c", code, *arguments]


def _search_path() -> list[str]:
    """``sys.path`` as it can be read from any folder."""
    return [entry if os.path.isabs(entry) else os.path.abspath(entry) for entry in sys.path]
