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

NUMBERS = ("headline", "layers", "loss", "verdict", "references", "sits_at", "accuracy", "timings")
"""Parts of a summary that no two runs share."""


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
    """Copies of a run, each of which seems to have been made with other settings, and to have found other numbers."""
    import yaml

    if not one.exists():
        subprocess.run([sys.executable, "-m", "pipeline", *TINY, f"hydra.run.dir={one}"], check=True)
    kept = one / ".hydra"
    config, hydra = (yaml.safe_load((kept / f"{name}.yaml").read_text()) for name in ("config", "hydra"))
    summary = json.loads((one / "summary.json").read_text())
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
        overrides = [*said, *(f"{key}={value}" for key, value in changes.items())]
        job = {"num": number, "id": str(number), "override_dirname": ",".join(sorted(overrides))}
        own = {"run": {"dir": str(new)}, "job": hydra["hydra"]["job"] | job}
        own |= {"runtime": hydra["hydra"]["runtime"] | {"output_dir": str(new)}}
        own |= {"overrides": hydra["hydra"]["overrides"] | {"task": overrides}}
        written = {"config": config, "hydra": {"hydra": hydra["hydra"] | own}, "overrides": overrides}
        for name, content in written.items():
            text = yaml.dump(content, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
            (new / ".hydra" / f"{name}.yaml").write_text(text)
        found = summary | {key: differing(summary[key], 1 + number / count) for key in NUMBERS if key in summary}
        (new / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
    partial.rename(folder)


def differing(value: object, factor: float) -> object:
    """The same with other numbers."""
    if isinstance(value, dict):
        return {key: differing(item, factor) for key, item in value.items()}
    if isinstance(value, list):
        return [differing(item, factor) for item in value]
    return value * factor if isinstance(value, float) else value


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
