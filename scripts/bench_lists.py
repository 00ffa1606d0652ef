#!/usr/bin/env python
"""`dnc list`, `dnc sweep` and `dnc report` of thousands of runs, with and without the index that lies beside them.

    python scripts/bench_lists.py --folder /tmp/bench_lists --runs 5000 --reported 1000

Makes one tiny run, and copies of it with other settings and other numbers (once); then runs each command in a process
of its own and prints its CPU and wall seconds. Without: the index is removed before; with: it is there from before.
"""

import argparse
import itertools
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TINY = "protocol=dufm protocol.samples_per_class=4 protocol.num_features=8 head.depth=3 head.width=8 descent.steps=1000"
TINY = [*TINY.split(), "descent.seeds=1", "logger=none", "record.figures=false"]
AXES = {"descent.lr": [0.001 * (i + 1) for i in range(50)], "head.weight_decay": [1e-5 * (i + 1) for i in range(20)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench_lists"))
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--reported", type=int, default=1000)
    options = parser.parse_args()
    many, fewer = options.folder / f"runs-{options.runs}", options.folder / f"runs-{options.reported}"
    for folder, count in ((many, options.runs), (fewer, options.reported)):
        if not folder.exists():
            make(folder, count, options.folder / "one")
    print("| command | runs | index | CPU s | wall s |\n|---|---|---|---|---|")
    commands = {"list": ["list", many], "sweep": ["sweep", many], "report": ["report", fewer]}
    for name, command in commands.items():
        count = len(list(command[1].glob("*/summary.json")))
        forget(command[1])
        for index in ("is not there", "made before"):
            used, waited = seconds(command)
            print(f"| `dnc {name}` | {count:,} | {index} | {used:.1f} | {waited:.1f} |", flush=True)
    print(f"\nThe report has {(fewer / 'report.html').stat().st_size / 2**20:.1f} MiB.")


def make(folder: Path, count: int, one: Path) -> None:
    """Copies of a run, each of which seems to have been made with other settings."""
    import yaml

    if not one.exists():
        subprocess.run([sys.executable, "-m", "pipeline", *TINY, f"hydra.run.dir={one}"], check=True)
    config = yaml.safe_load((one / ".hydra" / "config.yaml").read_text())
    summary = json.loads((one / "summary.json").read_text())
    measured = [entry["value"] for entry in summary["headline"]]
    said = [line for line in TINY if "=" in line]
    partial = folder.with_name(f"{folder.name}-partial")
    for number, (seed, *values) in enumerate(itertools.product(range(count), *AXES.values())):
        if number == count:
            break
        new = partial / str(number)
        shutil.copytree(one, new)
        changes = dict(zip(AXES, values, strict=True)) | {"seed": seed}
        for key, value in changes.items():
            *sections, name = key.split(".")
            within = config
            for section in sections:
                within = within[section]
            within[name] = value
        (new / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
        overrides = [*said, *(f"{key}={value}" for key, value in changes.items())]
        (new / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
        for entry, value in zip(summary["headline"], measured, strict=True):
            entry["value"] = value * (1 + number / count) if isinstance(value, float) else value
        (new / "summary.json").write_text(json.dumps(summary, indent=2))
    partial.rename(folder)


def forget(folder: Path) -> None:
    """Remove what an earlier command left beside the runs."""
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()


def seconds(command: list) -> tuple[float, float]:
    """CPU and wall seconds of a command of ours."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, command)],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).resolve().parent.parent,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - began


if __name__ == "__main__":
    main()
