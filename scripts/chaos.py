"""Kill runs of the real command at random moments of every stage, start them again, and compare what they leave.

    scripts/chaos --attempts 30 --seed 0            # all stages
    scripts/chaos --stage head --attempts 100       # one of them
    scripts/chaos --stage multirun --attempts 20    # a multirun of three runs, killed at any moment of it
    scripts/chaos --signal SIGTERM                  # asked to end instead of killed

Every attempt is a process of its own (forked from one that has done the imports, so that an attempt takes seconds). It
is killed at a random moment of its stage and once more, with probability 1/2, at a random moment of the second start.
The third start is left alone, and has to end with the same bytes in record.csv and tensors.safetensors (of a study in
its claims, too) as one that was never disturbed.
"""

import contextlib
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.cli.app import main as dnc
from pipeline.runtime.command_line import Parser
from pipeline.storage.record import read_summary
from pipeline.studies.engine.command import main as reproduce

# Few layers, because drawing them takes most of the time; only those that are killed while drawing draw.
RUN = ["data.samples_per_class=40", "backbone.hidden=[16]", "backbone.epochs=8", "backbone.batch_size=16"]
RUN += ["head.width=16", "head.depth=2", "descent.steps=3000", "descent.seeds=2", "descent.records_per_decade=2"]
RUN += ["logger=none", "trainer=cpu", "trainer.threads=1", "trainer.checkpoint_seconds=0"]
# What is made of several runs: small heads, and a checkpoint whenever there can be one.
HEAD = ["protocol.num_features=4", "protocol.samples_per_class=3", "head.width=4", "descent.steps=600"]
HEAD += [
    "descent.seeds=2",
    "descent.records_per_decade=2",
    "record.figures=false",
    "trainer.threads=1",
    "trainer.checkpoint_seconds=0",
]


@dataclass(frozen=True)
class Program:
    """What is run and disturbed.

    Attributes:
        run: does it in a given folder, in a process of its own.
        windows: for each stage what is there when it begins, and when it has ended; None: when all has.
        compared: patterns of the files that must have the same bytes.
        refuses: whether a folder in which it has completed is refused.
    """

    run: Callable[[Path], object]
    windows: dict[str, tuple[str, str | None]]
    compared: tuple[str, ...] = ("**/record.csv", "**/tensors.safetensors")
    refuses: bool = False


def command(*arguments: str) -> None:
    """The command ``dnc``."""
    sys.argv = ["dnc", *arguments]
    dnc()


PROGRAMS = {
    "run": Program(
        lambda folder: command(*RUN, "record.figures=false", f"hydra.run.dir={folder}"),
        {
            "backbone": ("summary.json", "checkpoints/backbone.safetensors"),
            "extraction": ("checkpoints/backbone.safetensors", "stages/features.safetensors"),
            "head": ("stages/features.safetensors", "stages/head.safetensors"),
            "recording": ("stages/head.safetensors", "tensors.safetensors"),
        },
        refuses=True,
    ),
    "drawn run": Program(
        lambda folder: command(*RUN, f"hydra.run.dir={folder}"),
        {"figure": ("tensors.safetensors", "figures/collapse.pdf")},
        refuses=True,
    ),
    "multirun": Program(
        lambda folder: command(
            "--multirun", "protocol=dufm", *HEAD, "logger=none", "seed=0,1,2", f"hydra.sweep.dir={folder}"
        ),
        {"multirun": ("multirun.yaml", None)},
    ),
    "reproduce": Program(
        lambda folder: reproduce(["e2_lr", "--quick", "--out", str(folder), *HEAD]),
        {"reproduce": (".", None)},
        compared=("**/record.csv", "**/tensors.safetensors", "**/tables/*_claims.*"),
    ),
}
PROGRAM_OF = {stage: name for name, program in PROGRAMS.items() for stage in program.windows}
POLL, LIMIT = 0.0005, 300.0


def start(program: Program, folder: Path) -> int:
    """Fork a program that works in ``folder``; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    with open(folder.with_suffix(".log"), "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = 0
    try:
        program.run(folder)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        code = 1
    os._exit(code)


def finished(pid: int) -> int | None:
    """Exit code of a process that has ended, negative for a signal; None while it lives."""
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def wait(pid: int, until: Callable[[], bool]) -> int | None:
    """Wait until something is so, or the process has ended (its exit code is returned then)."""
    end = time.monotonic() + LIMIT
    while not until():
        code = finished(pid)
        if code is not None:
            return code
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            raise SystemExit(f"chaos: a run took longer than {LIMIT:g} s; its log lies beside its folder")
        time.sleep(POLL)
    return None


def undisturbed(program: Program, folder: Path) -> dict[str, float]:
    """Run without disturbance; returns how long each stage took (seconds)."""
    pid, lasted, code = start(program, folder), {}, None
    for stage, (begin, end) in program.windows.items():
        code = wait(pid, (folder / begin).exists)
        began = time.monotonic()
        if code is None:
            code = wait(pid, (folder / end).exists if end else lambda: False)
        lasted[stage] = time.monotonic() - began
    code = wait(pid, lambda: False) if code is None else code
    if code != 0:
        raise SystemExit(f"chaos: what was not disturbed ended with {code}; see {folder.with_suffix('.log')}")
    return lasted


def disturb(program: Program, folder: Path, stage: str, lasts: float, number: int, dice: random.Random) -> bool:
    """Start it and end it at a random moment of a stage; whether that was before it had completed."""
    pid = start(program, folder)
    if wait(pid, (folder / program.windows[stage][0]).exists) is not None:
        return False
    moment = time.monotonic() + dice.uniform(0, lasts)
    if wait(pid, lambda: time.monotonic() > moment) is not None:
        return False
    os.kill(pid, number)
    return wait(pid, lambda: False) != 0


def attempt(
    program: Program, untouched: Path, folder: Path, stage: str, lasts: float, number: int, dice: random.Random
) -> str:
    """One attempt; "" if it survived, else what was wrong."""
    if disturb(program, folder, stage, lasts, number, dice) and dice.random() < 0.5:
        disturb(program, folder, stage, lasts, number, dice)
    # Completed before the signal came: it is not to be overwritten.
    completed = program.refuses and (read_summary(folder) or {}).get("status") == "completed"
    code = wait(start(program, folder), lambda: False)
    if code != (2 if completed else 0):
        return f"exit code {code}"
    expected, found = (results(program, place) for place in (untouched, folder))
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    leftovers = [path.name for path in folder.rglob(".dnc-tmp-*")]
    return f"{', '.join(different)} differ" if different else f"left {leftovers}" if leftovers else ""


def results(program: Program, folder: Path) -> dict[str, bytes]:
    """What must be the same, by its place in the folder."""
    found = {path for pattern in program.compared for path in folder.glob(pattern)}
    if not found:
        raise SystemExit(f"chaos: {folder} holds nothing that could be compared")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def main() -> None:
    parser = Parser(prog="chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--attempts", type=int, default=30, help="per stage (30)")
    parser.add_argument("--stage", action="append", choices=list(PROGRAM_OF), help="all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    parser.add_argument("--signal", default="SIGKILL", choices=["SIGKILL", "SIGTERM", "SIGINT"])
    parser.add_argument("--keep", action="store_true", help="keep the folders of attempts that were lost")
    options = parser.parse_args()
    console, dice = Console(), random.Random(options.seed)
    number = signal.Signals[options.signal]
    with contextlib.ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="dnc-chaos-"))
        if not options.keep:
            stack.callback(shutil.rmtree, work, ignore_errors=True)
        stages = options.stage or list(PROGRAM_OF)
        lasted = {}
        for name in dict.fromkeys(PROGRAM_OF[stage] for stage in stages):
            lasted |= undisturbed(PROGRAMS[name], work / f"undisturbed-{name}")
        table = Table("stage", "lasts", "attempts", "survived", "lost", title=options.signal)
        lost = 0
        for stage in stages:
            reasons, name = [], PROGRAM_OF[stage]
            untouched = work / f"undisturbed-{name}"
            for index in range(options.attempts):
                folder = work / f"{stage}-{index}"
                if reason := attempt(PROGRAMS[name], untouched, folder, stage, lasted[stage], number, dice):
                    reasons.append(f"{folder.name}: {reason}")
                    console.print(f"lost: {reasons[-1]}")
                else:
                    shutil.rmtree(folder, ignore_errors=True)
                print(f"\r{stage} {index + 1}/{options.attempts}", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
            survived = options.attempts - len(reasons)
            table.add_row(stage, f"{lasted[stage]:.2f} s", str(options.attempts), str(survived), str(len(reasons)))
            lost += len(reasons)
    console.print(table)
    sys.exit(int(lost > 0))


if __name__ == "__main__":
    # Imported before the forks, which then take no time; nothing is computed here.
    import sklearn.datasets  # noqa: F401

    import pipeline.runs.execution
    import pipeline.runs.stages
    import pipeline.views.wandb.tracker  # noqa: F401

    gc.freeze()  # or every fork would walk through all of it, and copy it by doing so

    main()
