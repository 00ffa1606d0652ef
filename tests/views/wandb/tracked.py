"""Tracked runs as real processes, and what wandb should have been told, recomputed from the record."""

import json
import math
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from commands import Command, Done, commands, dnc, wait_until

REPO = Path(__file__).parents[3]
DUFM = ["protocol=dufm", "descent.steps=300", "head.width=8", "protocol.samples_per_class=4", "head.depth=2"]
DUFM += ["descent.seeds=2", "descent.records_per_decade=3", "trainer.threads=1"]
IMAGES = ["data.samples_per_class=20", "backbone.hidden=[16,8]", "backbone.epochs=3", "head.width=8", "head.depth=3"]
IMAGES += ["head.inputs=free", "descent.seeds=2", "descent.records_per_decade=3", "trainer.threads=1"]


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any wandb account or setting, and with a home of its own.

    Only what the descent has compiled is shared by all homes, because compiling takes seconds.
    """
    compiled, shared = (folder / ".cache" / "deep-neural-collapse" for folder in (home, Path.home()))
    shared.mkdir(parents=True, exist_ok=True)
    compiled.parent.mkdir(parents=True, exist_ok=True)
    if not compiled.exists():  # else it is there already, or the home is this process's own
        compiled.symlink_to(shared)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "NETRC"))}
    paths = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    return kept | {"HOME": str(home), "PYTHONPATH": paths, "MPLCONFIGDIR": matplotlib.get_cachedir()} | dict(more or {})


def start(folder: Path, arguments: Sequence[str], more: Mapping[str, str] | None = None) -> Command:
    """Start the command in ``folder``; its run folder is ``folder/run``."""
    variables = environment(folder / "home", more)
    return commands().start(*arguments, "hydra.run.dir=run", folder=folder, environment=variables)


def run(folder: Path, arguments: Sequence[str], more: Mapping[str, str] | None = None) -> str:
    """Run the command to its end; everything it said."""
    done = dnc(*arguments, "hydra.run.dir=run", cwd=folder, environment=environment(folder / "home", more))
    return done.stdout + done.stderr


def pause_in_the_head(command: Command, folder: Path) -> None:
    """Stop the process in the middle of the descent; wandb's own process goes on."""
    command.wait_for(folder / "run" / "stages" / "features.safetensors")  # the head is next
    os.kill(command.pid, signal.SIGSTOP)
    assert not (folder / "run" / "tensors.safetensors").exists(), "the run was over before it could be stopped"


def wandb(*arguments: str, folder: Path, more: Mapping[str, str] | None = None) -> str:
    """Run wandb's own command; what it printed."""
    done = _wandb(*arguments, folder=folder, more=more)
    assert done.code == 0, done.err
    return done.out


def _wandb(*arguments: str, folder: Path, more: Mapping[str, str] | None = None) -> Done:
    return commands().run("-m", "wandb", *arguments, folder=folder, environment=environment(folder / "home", more))


def rows_on_disk(file: Path, folder: Path) -> list[dict[str, Any]]:
    """The history in a run's transaction log, read by wandb's own reader."""
    return _history(wandb("leet", "inspect", "--json", str(file), folder=folder))


def wait_for_rows_on_disk(count: int, folder: Path) -> None:
    """Return when the one transaction log of ``folder/run``, to which wandb is writing, has so many rows."""

    def enough() -> bool:
        (file,) = (folder / "run" / "wandb").glob("offline-run-*/*.wandb")
        done = _wandb("leet", "inspect", "--json", str(file), folder=folder)
        return done.code == 0 and len(_history(done.out)) >= count  # its last record may be half written

    wait_until(enough, pause=0.2)


def _history(printed: str) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in printed.splitlines()]
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def expected_rows(record: pd.DataFrame) -> list[dict[str, float]]:
    """What the history must hold: one row per stage and step, in the record's order, means over seeds."""
    rows = []
    for (stage, step), group in record.groupby(["stage", "step"], sort=False):
        row = {f"{stage}/step": step}
        for (layer, tap, metric), values in group.groupby(["layer", "tap", "metric"], sort=False):
            name = f"layer_{layer}" if layer.isdecimal() else layer  # of a head by number, of a network by name
            place = f"{name}/{tap}/" if layer else ""
            row[f"{stage}/{place}{metric}"] = math.nan if values.value.isna().any() else values.value.mean()
        rows.append(row)
    return rows


def curves(history: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of measurements without wandb's own columns (the last row of a completed run has tables and figures), and
    without what is noted beside them (`Record.asides`), which is no measurement."""
    noted = ("/learning_rate", "/batches_per_step")
    for row in history:
        if any(key.endswith("/step") for key in row):
            yield {key: row[key] for key in row if not key.startswith("_") and not key.endswith(noted)}


def assert_same(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, float]]) -> None:
    """Same rows, same keys, same numbers (to the rounding of a sum in another order); NaN equals NaN."""
    assert [set(row) for row in found] == [set(row) for row in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        for key, value in theirs.items():
            assert math.isclose(ours[key], value, rel_tol=1e-12, abs_tol=1e-300) or (
                math.isnan(value) and math.isnan(float(ours[key]))
            ), key
