#!/usr/bin/env python
"""How long the command takes to begin: CPU seconds of each way in, in units of `import torch`.

    python scripts/bench_start.py --rounds 10

Every round starts each of them once, in a process of its own, beside one `import torch`; the least of all rounds
counts, so that busy neighbours disturb little. Bytecode is kept, as where a package is installed. Makes 60 tiny runs to
list, once (a minute; `--folder` keeps them).
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

TINY = "protocol=dufm protocol.samples_per_class=4 protocol.num_features=8 head.depth=2 head.width=8 descent.steps=10"
TINY = [*TINY.split(), "descent.seeds=1", "logger=none", "record.figures=false"]
SWEPT = ["seed=0,1,2,3,4", "head.weight_decay=1e-3,3e-3,1e-2", "descent.lr=0.1,0.5", "head.activation=relu,linear"]
DNC = [sys.executable, "-m", "pipeline"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench_start"))
    options = parser.parse_args()
    sweep = (options.folder / "sixty").absolute()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
        "PYTHONPYCACHEPREFIX": str(options.folder.absolute() / "bytecode"),
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "COMP_LINE": "dnc head.",
        "COMP_POINT": "9",
        "OMP_NUM_THREADS": "1",
    }
    if not sweep.exists():
        seconds([*DNC, "-m", "-q", *TINY, *SWEPT, f"hydra.sweep.dir={sweep}"], environment, options.folder)
    with tempfile.TemporaryDirectory() as scratch:
        least = measured(ways_in(sweep, Path(scratch)), options.rounds, environment, options.folder)
    unit = least["import torch"]
    print("| what | CPU s | in units of `import torch` |\n| --- | --- | --- |")
    for name, used in least.items():
        print(f"| {name} | {used:.2f} | {used / unit:.2f} |")


def ways_in(sweep: Path, scratch: Path) -> dict[str, list[str]]:
    """What is started, by its name in the table."""
    python = [sys.executable, "-c"]
    return {
        "import torch": [*python, "import torch"],
        "`dnc --version`": [*DNC, "--version"],
        "`dnc --help`": [*DNC, "--help"],
        "Tab": [*DNC, "-sc", "query=bash"],
        "an unknown key": [*DNC, "head.depht=3"],
        "a value out of range": [*DNC, "descent.lr=-1"],
        "`dnc list` of 60 runs": [*DNC, "list", str(sweep)],
        "a tiny DUFM run without tracker and figures": [*DNC, *TINY, f"hydra.run.dir={scratch}/${{now:%H%M%S.%f}}"],
        "`from pipeline import CollapseTracker`": [*python, "from pipeline import CollapseTracker"],
    }


def measured(
    commands: dict[str, list[str]], rounds: int, environment: dict[str, str], folder: Path
) -> dict[str, float]:
    """The least CPU seconds of each command over the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            taken[name].append(seconds(command, environment, folder))
    return {name: min(all_of_them) for name, all_of_them in taken.items()}


def seconds(command: list[str], environment: dict[str, str], folder: Path) -> float:
    """User and system seconds of a process and of those that it waited for."""
    folder.mkdir(parents=True, exist_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


if __name__ == "__main__":
    main()
