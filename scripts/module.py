"""python -P scripts/module.py MODULE [arguments]: run a module of this checkout's package, as ``python -m`` would.

The package is that of this checkout, even where the working directory or PYTHONPATH has another by its name.
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import pipeline  # noqa: F401 (from now on its parts come from here)

del sys.path[0], sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
